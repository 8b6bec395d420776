//! memfd_create(2), seals of fcntl(2), memfd_secret(2).

//! POSIX shared memory and files in /dev/shm: shm_open(3), shm_unlink(3).

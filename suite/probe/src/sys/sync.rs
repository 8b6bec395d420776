//! POSIX semaphores, pthread objects with PTHREAD_PROCESS_SHARED, futexes.

//! Message queues: System V (msgget(2), msgop(2), msgctl(2)) and POSIX (mq_overview(7)).

//! The system calls the catalogue is about: their names, and their numbers on this architecture.

/// The numbers that libc has, and those of calls it does not have for every target; these are the same everywhere.
#[expect(non_upper_case_globals, reason = "named as libc names them")]
mod numbers {
    pub(super) use libc::*;

    pub(super) const SYS_futex_wake: c_long = 454;
    pub(super) const SYS_futex_wait: c_long = 455;
    pub(super) const SYS_futex_requeue: c_long = 456;
}

/// Declares [`Sys`] from one list, so that a name and its number cannot part.
macro_rules! calls {
    ($($variant:ident $name:ident $number:ident;)*) => {
        /// A system call that a probe claims something about or depends on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Sys { $(#[doc = concat!("`", stringify!($name), "`")] $variant,)* }

        impl Sys {
            /// Every call of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name of the call as in section 2 of the manual.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($name),)* }
            }

            /// The call's number on this architecture.
            pub const fn number(self) -> libc::c_long {
                match self { $(Self::$variant => numbers::$number,)* }
            }
        }
    };
}

calls! {
    Shmget shmget SYS_shmget;
    Shmat shmat SYS_shmat;
    Shmdt shmdt SYS_shmdt;
    Shmctl shmctl SYS_shmctl;
    Semget semget SYS_semget;
    Semop semop SYS_semop;
    Semtimedop semtimedop SYS_semtimedop;
    Semctl semctl SYS_semctl;
    Msgget msgget SYS_msgget;
    Msgsnd msgsnd SYS_msgsnd;
    Msgrcv msgrcv SYS_msgrcv;
    Msgctl msgctl SYS_msgctl;
    MqOpen mq_open SYS_mq_open;
    MqUnlink mq_unlink SYS_mq_unlink;
    MqTimedsend mq_timedsend SYS_mq_timedsend;
    MqTimedreceive mq_timedreceive SYS_mq_timedreceive;
    MqNotify mq_notify SYS_mq_notify;
    MqGetsetattr mq_getsetattr SYS_mq_getsetattr;
    Mmap mmap SYS_mmap;
    Munmap munmap SYS_munmap;
    Mremap mremap SYS_mremap;
    RemapFilePages remap_file_pages SYS_remap_file_pages;
    Mprotect mprotect SYS_mprotect;
    Msync msync SYS_msync;
    Madvise madvise SYS_madvise;
    Mincore mincore SYS_mincore;
    Mlock mlock SYS_mlock;
    Mlock2 mlock2 SYS_mlock2;
    Munlock munlock SYS_munlock;
    Mlockall mlockall SYS_mlockall;
    Munlockall munlockall SYS_munlockall;
    Ftruncate ftruncate SYS_ftruncate;
    Fallocate fallocate SYS_fallocate;
    Close close SYS_close;
    MemfdCreate memfd_create SYS_memfd_create;
    MemfdSecret memfd_secret SYS_memfd_secret;
    Futex futex SYS_futex;
    FutexWaitv futex_waitv SYS_futex_waitv;
    SetRobustList set_robust_list SYS_set_robust_list;
    GetRobustList get_robust_list SYS_get_robust_list;
    Mbind mbind SYS_mbind;
    SetMempolicy set_mempolicy SYS_set_mempolicy;
    GetMempolicy get_mempolicy SYS_get_mempolicy;
    MovePages move_pages SYS_move_pages;
    MigratePages migrate_pages SYS_migrate_pages;
    SetMempolicyHomeNode set_mempolicy_home_node SYS_set_mempolicy_home_node;
    Userfaultfd userfaultfd SYS_userfaultfd;
    PidfdOpen pidfd_open SYS_pidfd_open;
    PidfdGetfd pidfd_getfd SYS_pidfd_getfd;
    ProcessVmReadv process_vm_readv SYS_process_vm_readv;
    ProcessVmWritev process_vm_writev SYS_process_vm_writev;
    Ptrace ptrace SYS_ptrace;
    Kcmp kcmp SYS_kcmp;
    Unshare unshare SYS_unshare;
    Setns setns SYS_setns;
    Mount mount SYS_mount;
    Sendmsg sendmsg SYS_sendmsg;
    Recvmsg recvmsg SYS_recvmsg;
    Socketpair socketpair SYS_socketpair;
    Splice splice SYS_splice;
    Vmsplice vmsplice SYS_vmsplice;
    Sendfile sendfile SYS_sendfile;
    Mseal mseal SYS_mseal;
    FutexWake futex_wake SYS_futex_wake;
    FutexWait futex_wait SYS_futex_wait;
    FutexRequeue futex_requeue SYS_futex_requeue;
    ProcessMadvise process_madvise SYS_process_madvise;
    PkeyMprotect pkey_mprotect SYS_pkey_mprotect;
}

impl Sys {
    /// The call of that name, if the catalogue has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|call| call.name() == name)
    }
}

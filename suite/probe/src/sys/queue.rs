//! Message queues: System V (msgget(2), msgop(2), msgctl(2)) and POSIX (mq_overview(7)).

use super::{Result, cstr, ret};
use libc::{c_int, c_long, mode_t};
use std::os::fd::{FromRawFd, OwnedFd};

pub use libc::{IPC_NOWAIT, MSG_EXCEPT, MSG_NOERROR};

/// `msgrcv` flag: a copy of the message at a position, msgop(2).
pub const MSG_COPY: c_int = 0o40000;
/// `msgctl` command: a queue by its index, msgctl(2).
pub const MSG_STAT: c_int = 11;
/// `msgctl` command: usage of the namespace, msgctl(2).
pub const MSG_INFO: c_int = 12;
/// `msgctl` command: as `MSG_STAT` without the permission check, Linux 4.17, msgctl(2).
pub const MSG_STAT_ANY: c_int = 13;
/// The priorities of POSIX messages end before this one: `sysconf(_SC_MQ_PRIO_MAX)`, mq_overview(7).
pub const MQ_PRIO_MAX: u32 = 32_768;

/// What stands in the bytes of a receive buffer that nothing was written to.
pub const UNTOUCHED: u8 = 0xee;

/// What `IPC_INFO` and `MSG_INFO` fill. `struct msginfo`, msgctl(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MsgInfo {
    /// `MSG_INFO`: number of queues in the namespace.
    pub msgpool: c_int,
    /// `MSG_INFO`: number of messages in all queues.
    pub msgmap: c_int,
    /// Largest size of a message in bytes.
    pub msgmax: c_int,
    /// Bytes a new queue may hold.
    pub msgmnb: c_int,
    /// Number of queues the namespace may have.
    pub msgmni: c_int,
    /// Segment size; unused by the kernel.
    pub msgssz: c_int,
    /// `MSG_INFO`: number of bytes in all queues.
    pub msgtql: c_int,
    /// Number of segments; unused by the kernel.
    pub msgseg: u16,
}

const _: () = assert!(size_of::<MsgInfo>() == 32);

/// What `IPC_STAT` fills, with the members that the C library hides under reserved names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsgStat {
    /// The key given to msgget.
    pub key: i32,
    /// Effective user id of the owner.
    pub uid: u32,
    /// Effective group id of the owner.
    pub gid: u32,
    /// Effective user id of the creator.
    pub cuid: u32,
    /// Effective group id of the creator.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Sequence number.
    pub seq: u16,
    /// Time of the last msgsnd in seconds since the epoch, 0 for never.
    pub stime: i64,
    /// Time of the last msgrcv in seconds since the epoch, 0 for never.
    pub rtime: i64,
    /// Time of creation or of the last `IPC_SET`.
    pub ctime: i64,
    /// Bytes in the queue.
    pub cbytes: u64,
    /// Messages in the queue.
    pub qnum: u64,
    /// Bytes the queue may hold.
    pub qbytes: u64,
    /// Process of the last msgsnd.
    pub lspid: i32,
    /// Process of the last msgrcv.
    pub lrpid: i32,
}

impl From<&libc::msqid_ds> for MsgStat {
    fn from(ds: &libc::msqid_ds) -> Self {
        let perm = &ds.msg_perm;
        Self {
            key: perm.__key,
            uid: perm.uid,
            gid: perm.gid,
            cuid: perm.cuid,
            cgid: perm.cgid,
            mode: u32::from(perm.mode),
            seq: perm.__seq,
            stime: ds.msg_stime,
            rtime: ds.msg_rtime,
            ctime: ds.msg_ctime,
            cbytes: ds.__msg_cbytes,
            qnum: ds.msg_qnum,
            qbytes: ds.msg_qbytes,
            lspid: ds.msg_lspid,
            lrpid: ds.msg_lrpid,
        }
    }
}

/// A message of a System V queue as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: i64,
    /// Its text: as many bytes as the call returned.
    pub text: Vec<u8>,
    /// What follows the text in the buffer, and eight bytes behind the size given: [`UNTOUCHED`] where all is well.
    pub rest: Vec<u8>,
}

/// `struct msgbuf`: the type, then the text, aligned as the type is.
fn msgbuf(kind: i64, text: &[u8]) -> Vec<i64> {
    let mut words = vec![kind];
    for chunk in text.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        words.push(i64::from_ne_bytes(word));
    }
    words
}

/// `msgget(key, flags)`—finds or creates a queue; its identifier.
pub fn msgget(key: i32, flags: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    ret("msgget", unsafe { libc::msgget(key, flags) })
}

/// `msgsnd(id, {kind, text}, flags)`
pub fn msgsnd(id: c_int, kind: i64, text: &[u8], flags: c_int) -> Result<()> {
    let buffer = msgbuf(kind, text);
    // SAFETY: the buffer holds a type and at least as many bytes as the length says.
    ret("msgsnd", unsafe { libc::msgsnd(id, buffer.as_ptr().cast(), text.len(), flags) }).map(drop)
}

/// `msgrcv(id, buffer of size bytes, kind, flags)`
pub fn msgrcv(id: c_int, size: usize, kind: i64, flags: c_int) -> Result<Message> {
    let mut buffer = vec![i64::from_ne_bytes([UNTOUCHED; 8]); 2 + size.div_ceil(8)];
    // SAFETY: the buffer has room for a type and `size` bytes.
    let length = ret("msgrcv", unsafe { libc::msgrcv(id, buffer.as_mut_ptr().cast(), size, kind, flags) } as i64)?;
    let mut text: Vec<u8> = buffer[1..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let rest = text.split_off(usize::try_from(length).unwrap_or(0).min(text.len()));
    Ok(Message { kind: buffer[0], text, rest })
}

/// `msgctl(id, IPC_STAT)`—all members of `msqid_ds`.
pub fn msg_stat(id: c_int) -> Result<MsgStat> {
    msg_stat_by(id, libc::IPC_STAT).map(|(_, stat)| stat)
}

/// `msgctl(id or index, command)` for `IPC_STAT`, `MSG_STAT`, `MSG_STAT_ANY`; the value returned and the members.
pub fn msg_stat_by(id: c_int, command: c_int) -> Result<(c_int, MsgStat)> {
    // SAFETY: msqid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::msqid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is a msqid_ds, as these commands expect.
    let value = ret("msgctl", unsafe { libc::msgctl(id, command, &raw mut ds) })?;
    Ok((value, MsgStat::from(&ds)))
}

/// `msgctl(id, IPC_SET)`—sets owner, group, the low nine mode bits and the queue's size from these members of `to`.
///
/// The other members are handed over too: the kernel is to ignore them.
pub fn msg_set(id: c_int, to: &MsgStat) -> Result<()> {
    // SAFETY: msqid_ds is plain numbers, for which zero is a value.
    let mut ds: libc::msqid_ds = unsafe { std::mem::zeroed() };
    let perm = &mut ds.msg_perm;
    (perm.__key, perm.uid, perm.gid, perm.cuid, perm.cgid) = (to.key, to.uid, to.gid, to.cuid, to.cgid);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "mode_t of ipc_perm is 16 bits wide in libc; higher bits have no meaning"
    )]
    {
        perm.mode = to.mode as _;
    }
    perm.__seq = to.seq;
    (ds.msg_stime, ds.msg_rtime, ds.msg_ctime) = (to.stime, to.rtime, to.ctime);
    (ds.__msg_cbytes, ds.msg_qnum, ds.msg_qbytes) = (to.cbytes, to.qnum, to.qbytes);
    (ds.msg_lspid, ds.msg_lrpid) = (to.lspid, to.lrpid);
    // SAFETY: the buffer is a msqid_ds, which the kernel only reads.
    ret("msgctl", unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut ds) }).map(drop)
}

/// `msgctl(id, command, NULL)`—a command without buffer: `IPC_RMID`, or one to be refused.
pub fn msgctl(id: c_int, command: c_int) -> Result<c_int> {
    // SAFETY: no memory is passed.
    ret("msgctl", unsafe { libc::msgctl(id, command, std::ptr::null_mut()) })
}

/// `msgctl(id, IPC_RMID)`
pub fn msg_remove(id: c_int) -> Result<()> {
    msgctl(id, libc::IPC_RMID).map(drop)
}

/// `msgctl(0, IPC_INFO or MSG_INFO)`—the value returned (highest index in use) and the limits or usage.
pub fn msg_info(command: c_int) -> Result<(c_int, MsgInfo)> {
    let mut info = MsgInfo::default();
    // SAFETY: for these commands the kernel writes a struct msginfo, whose layout MsgInfo has.
    let value = unsafe { libc::msgctl(0, command, (&raw mut info).cast()) };
    ret("msgctl", value).map(|highest| (highest, info))
}

/// Attributes of a POSIX queue. `struct mq_attr`, mq_getattr(3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MqAttr {
    /// 0 or `O_NONBLOCK`.
    pub flags: i64,
    /// Messages the queue may hold.
    pub maxmsg: i64,
    /// Largest size of a message in bytes.
    pub msgsize: i64,
    /// Messages in the queue.
    pub curmsgs: i64,
}

impl MqAttr {
    /// Attributes of a queue to be made.
    pub const fn new(maxmsg: i64, msgsize: i64) -> Self {
        Self { flags: 0, maxmsg, msgsize, curmsgs: 0 }
    }

    fn to_c(self) -> libc::mq_attr {
        // SAFETY: mq_attr is plain numbers, for which zero is a value.
        let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
        (attr.mq_flags, attr.mq_maxmsg, attr.mq_msgsize) = (self.flags, self.maxmsg, self.msgsize);
        attr.mq_curmsgs = self.curmsgs;
        attr
    }

    fn from_c(attr: &libc::mq_attr) -> Self {
        Self { flags: attr.mq_flags, maxmsg: attr.mq_maxmsg, msgsize: attr.mq_msgsize, curmsgs: attr.mq_curmsgs }
    }
}

/// Takes over a descriptor that a call returned.
fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: the caller passes a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `mq_open(name, flags, mode, attr)`—the library's function; a queue descriptor is a file descriptor on Linux.
pub fn mq_open(name: &str, flags: c_int, mode: mode_t, attr: Option<&MqAttr>) -> Result<OwnedFd> {
    let name = cstr(name);
    let attr = attr.map(|attr| attr.to_c());
    let attr = attr.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the name is a C string, the attributes are null or a struct mq_attr; both outlive the call.
    ret("mq_open", unsafe { libc::mq_open(name.as_ptr(), flags, mode, attr) }).map(owned)
}

/// `mq_open(name, flags, mode, attr)`—the system call: a name has no leading slash.
pub fn raw_mq_open(name: &str, flags: c_int, mode: mode_t, attr: Option<&MqAttr>) -> Result<OwnedFd> {
    let name = cstr(name);
    let attr = attr.map(|attr| attr.to_c());
    let attr = attr.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the name is a C string, the attributes are null or a struct mq_attr; both outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, mode, attr) };
    ret("mq_open", fd).map(|fd| owned(c_int::try_from(fd).unwrap_or(-1)))
}

/// `mq_unlink(name)`—the library's function.
pub fn mq_unlink(name: &str) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    ret("mq_unlink", unsafe { libc::mq_unlink(name.as_ptr()) }).map(drop)
}

/// `mq_unlink(name)`—the system call: a name has no leading slash.
pub fn raw_mq_unlink(name: &str) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    ret("mq_unlink", unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) }).map(drop)
}

/// `mq_close(fd)`—any number; for descriptors that no owner will close again.
pub fn mq_close(fd: c_int) -> Result<()> {
    // SAFETY: by contract no owned descriptor of this number is used afterwards.
    ret("mq_close", unsafe { libc::mq_close(fd) }).map(drop)
}

/// `mq_send(fd, text, priority)`—any descriptor number, also one to be refused.
pub fn mq_send(fd: c_int, text: &[u8], priority: u32) -> Result<()> {
    // SAFETY: pointer and length are those of the slice.
    ret("mq_send", unsafe { libc::mq_send(fd, text.as_ptr().cast(), text.len(), priority) }).map(drop)
}

/// `mq_timedsend(fd, text, priority, (seconds, nanoseconds))`—an absolute time of the real-time clock.
pub fn mq_timedsend(fd: c_int, text: &[u8], priority: u32, (tv_sec, tv_nsec): (i64, i64)) -> Result<()> {
    let time = libc::timespec { tv_sec, tv_nsec };
    // SAFETY: pointer and length are those of the slice; the time is a struct timespec.
    let value = unsafe { libc::mq_timedsend(fd, text.as_ptr().cast(), text.len(), priority, &raw const time) };
    ret("mq_timedsend", value).map(drop)
}

/// `mq_receive(fd, buffer)`—the number of bytes received and the priority.
pub fn mq_receive_into(fd: c_int, buffer: &mut [u8]) -> Result<(usize, u32)> {
    let mut priority = 0;
    // SAFETY: pointer and length are those of the slice; the priority is an unsigned int.
    let value = unsafe { libc::mq_receive(fd, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut priority) };
    let length = ret("mq_receive", value as i64)?;
    Ok((usize::try_from(length).unwrap_or(0), priority))
}

/// `mq_receive(fd, buffer of size bytes)`—the text and the priority.
pub fn mq_receive(fd: c_int, size: usize) -> Result<(Vec<u8>, u32)> {
    let mut buffer = vec![UNTOUCHED; size];
    let (length, priority) = mq_receive_into(fd, &mut buffer)?;
    buffer.truncate(length);
    Ok((buffer, priority))
}

/// `mq_receive(fd, buffer of size bytes, NULL)`—the text; nobody asks for the priority.
pub fn mq_receive_text(fd: c_int, size: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![UNTOUCHED; size];
    // SAFETY: pointer and length are those of the vector; a null priority is allowed.
    let value = unsafe { libc::mq_receive(fd, buffer.as_mut_ptr().cast(), size, std::ptr::null_mut()) };
    let length = ret("mq_receive", value as i64)?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(buffer)
}

/// `mq_timedreceive(fd, buffer of size bytes, (seconds, nanoseconds))`—an absolute time of the real-time clock.
pub fn mq_timedreceive(fd: c_int, size: usize, (tv_sec, tv_nsec): (i64, i64)) -> Result<(Vec<u8>, u32)> {
    let mut buffer = vec![UNTOUCHED; size];
    let mut priority = 0;
    let time = libc::timespec { tv_sec, tv_nsec };
    let to = buffer.as_mut_ptr().cast();
    // SAFETY: pointer and length are those of the vector; the time is a struct timespec, the priority an unsigned int.
    let value = unsafe { libc::mq_timedreceive(fd, to, size, &raw mut priority, &raw const time) };
    let length = ret("mq_timedreceive", value as i64)?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok((buffer, priority))
}

/// `mq_getattr(fd)`
pub fn mq_getattr(fd: c_int) -> Result<MqAttr> {
    let mut attr = MqAttr::default().to_c();
    // SAFETY: the buffer is a struct mq_attr.
    ret("mq_getattr", unsafe { libc::mq_getattr(fd, &raw mut attr) })?;
    Ok(MqAttr::from_c(&attr))
}

/// `mq_setattr(fd, attr)`—the attributes before.
pub fn mq_setattr(fd: c_int, attr: &MqAttr) -> Result<MqAttr> {
    let new = attr.to_c();
    let mut old = MqAttr::default().to_c();
    // SAFETY: both buffers are a struct mq_attr.
    ret("mq_setattr", unsafe { libc::mq_setattr(fd, &raw const new, &raw mut old) })?;
    Ok(MqAttr::from_c(&old))
}

/// `sysconf(_SC_MQ_PRIO_MAX)`
pub fn mq_prio_max() -> c_long {
    // SAFETY: no memory is passed.
    unsafe { libc::sysconf(libc::_SC_MQ_PRIO_MAX) }
}

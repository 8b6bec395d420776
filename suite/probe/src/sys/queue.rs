//! Message queues: System V (msgget(2), msgop(2), msgctl(2)) and POSIX (mq_overview(7)).

use super::{Result, cstr, ret};
use libc::{c_int, c_long, c_void, mode_t};
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

/// How the arrival of a message is to be told. `struct sigevent`, sigevent(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// `SIGEV_NONE`
    Nothing,
    /// `SIGEV_SIGNAL` with this signal and value.
    Signal(c_int, usize),
    /// `sigev_notify` is this number and `sigev_signo` that: for methods to be refused.
    Other(c_int, c_int),
}

/// `mq_notify(fd, event)`—registers, or with `None` takes the registration back.
pub fn mq_notify(fd: c_int, event: Option<Notify>) -> Result<()> {
    let event = event.map(|event| {
        // SAFETY: sigevent is plain numbers and a pointer, for which zero is a value.
        let mut c: libc::sigevent = unsafe { std::mem::zeroed() };
        (c.sigev_notify, c.sigev_signo, c.sigev_value.sival_ptr) = match event {
            Notify::Nothing => (libc::SIGEV_NONE, 0, std::ptr::null_mut()),
            Notify::Signal(signal, value) => (libc::SIGEV_SIGNAL, signal, value as *mut c_void),
            Notify::Other(method, signal) => (method, signal, std::ptr::null_mut()),
        };
        c
    });
    let event = event.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // The library's function is the call but for SIGEV_THREAD; libc has no binding for it.
    // SAFETY: the event is null or a struct sigevent that the kernel only reads.
    ret("mq_notify", unsafe { libc::syscall(libc::SYS_mq_notify, fd, event) }).map(drop)
}

/// Length of the cookie that announces a message on a netlink socket. `NOTIFY_COOKIE_LEN`, mqueue.h.
pub const NOTIFY_COOKIE: usize = 32;

/// `mq_notify(fd, SIGEV_THREAD)`—what the C library builds its threads on: the cookie comes back through the socket.
pub fn mq_notify_socket(fd: c_int, socket: c_int, cookie: &[u8; NOTIFY_COOKIE]) -> Result<()> {
    // SAFETY: sigevent is plain numbers and a pointer, for which zero is a value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD;
    event.sigev_signo = socket;
    event.sigev_value.sival_ptr = cookie.as_ptr().cast_mut().cast();
    // SAFETY: the event is a struct sigevent whose pointer has the cookie's length; the kernel only reads both.
    ret("mq_notify", unsafe { libc::syscall(libc::SYS_mq_notify, fd, &raw const event) }).map(drop)
}

/// `socket(AF_NETLINK, SOCK_RAW, 0)`—as the C library makes it for queues.
pub fn netlink_socket() -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    ret("socket", unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) }).map(owned)
}

/// `recv(fd, buffer, MSG_DONTWAIT)`—what is there.
pub fn recv_now(fd: c_int, size: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; size];
    // SAFETY: pointer and length are those of the vector.
    let value = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), size, libc::MSG_DONTWAIT) };
    let length = ret("recv", value as i64)?;
    buffer.truncate(usize::try_from(length).unwrap_or(0));
    Ok(buffer)
}

/// `struct sigevent` as the C library reads it for `SIGEV_THREAD`.
#[repr(C)]
struct ThreadEvent {
    value: usize,
    signal: c_int,
    notify: c_int,
    function: extern "C" fn(libc::sigval),
    attributes: *const c_void,
    unused: [usize; 4],
}

const _: () = assert!(size_of::<ThreadEvent>() == size_of::<libc::sigevent>());

unsafe extern "C" {
    #[link_name = "mq_notify"]
    fn libc_mq_notify(fd: c_int, event: *const ThreadEvent) -> c_int;
}

/// `mq_notify(fd, SIGEV_THREAD, function, value)`—the library's function; a thread of its own calls `function`.
pub fn mq_notify_thread(fd: c_int, function: extern "C" fn(libc::sigval), value: usize) -> Result<()> {
    let event = ThreadEvent {
        value,
        signal: 0,
        notify: libc::SIGEV_THREAD,
        function,
        attributes: std::ptr::null(),
        unused: [0; 4],
    };
    // SAFETY: the event has the layout of struct sigevent; the function lives as long as the program.
    ret("mq_notify", unsafe { libc_mq_notify(fd, &raw const event) }).map(drop)
}

/// `siginfo_t` of a signal that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalInfo {
    /// `si_code`
    pub code: c_int,
    /// `si_pid`
    pub pid: libc::pid_t,
    /// `si_uid`
    pub uid: libc::uid_t,
    /// `si_value`
    pub value: usize,
}

/// `si_code` of a signal that announces a message: `SI_MESGQ`, sigaction(2).
pub const SI_MESGQ: c_int = -3;

/// Blocks a signal in this thread, so that [`take_signal`] can wait for it.
pub fn block_signal(signal: c_int) -> Result<()> {
    let set = signal_set(signal);
    // SAFETY: the set is initialised; the old one is not asked for.
    ret("sigprocmask", unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) }).map(drop)
}

/// `sigtimedwait({signal}, millis)`—its information; `None` where it did not come.
pub fn take_signal(signal: c_int, millis: i64) -> Result<Option<SignalInfo>> {
    let set = signal_set(signal);
    let time = libc::timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    // SAFETY: siginfo_t is plain numbers and pointers, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is initialised, the information a siginfo_t, the time a timespec.
    let value = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const time) };
    match ret("sigtimedwait", value) {
        Err(e) if e.errno == libc::EAGAIN => return Ok(None),
        other => other?,
    };
    // SAFETY: every signal of a queue carries a sender.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let uid = unsafe { info.si_uid() };
    // SAFETY: as above; the value is read as the number that was passed as a pointer.
    let value = unsafe { info.si_value() };
    Ok(Some(SignalInfo { code: info.si_code, pid, uid, value: value.sival_ptr as usize }))
}

fn signal_set(signal: c_int) -> libc::sigset_t {
    // SAFETY: sigset_t is plain numbers, for which zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a sigset_t.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    set
}

/// Where the handler of [`tell_signal`] writes.
static TOLD: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

extern "C" fn told(_: c_int) {
    let fd = TOLD.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; a refused write is noticed by the reader's time limit.
    unsafe { libc::write(fd, (&raw const fd).cast(), 1) };
}

/// Handles a signal with a function that writes one byte to `fd`; flags such as `SA_RESTART`.
pub fn tell_signal(signal: c_int, flags: c_int, fd: c_int) -> Result<()> {
    TOLD.store(fd, std::sync::atomic::Ordering::Relaxed);
    // SAFETY: sigaction is plain numbers and pointers, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = told as extern "C" fn(c_int) as usize;
    action.sa_flags = flags;
    // SAFETY: the action is initialised; its function only calls write.
    ret("sigaction", unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }).map(drop)
}

/// `poll({fd, events}, millis)`—the events that came, 0 where none did.
pub fn poll_for(fd: c_int, events: i16, millis: c_int) -> Result<i16> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry is passed and counted as one.
    ret("poll", unsafe { libc::poll(&raw mut entry, 1, millis) })?;
    Ok(entry.revents)
}

/// An epoll instance that watches one descriptor for these events.
pub fn epoll_on(fd: c_int, events: c_int) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let epoll = ret("epoll_create1", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(owned)?;
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 7 };
    let watching = std::os::fd::AsRawFd::as_raw_fd(&epoll);
    // SAFETY: the event is a struct epoll_event that the kernel only reads.
    ret("epoll_ctl", unsafe { libc::epoll_ctl(watching, libc::EPOLL_CTL_ADD, fd, &raw mut event) })?;
    Ok(epoll)
}

/// `epoll_wait(epoll, millis)`—the events of the one descriptor, 0 where none came.
pub fn epoll_wait(epoll: c_int, millis: c_int) -> Result<c_int> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: one event is passed and counted as one.
    let count = ret("epoll_wait", unsafe { libc::epoll_wait(epoll, &raw mut event, 1, millis) })?;
    Ok(if count == 0 { 0 } else { event.events.cast_signed() })
}

/// `nice(increment)`—lowers this process's scheduling priority.
pub fn be_nice(increment: c_int) {
    // SAFETY: no memory is passed; −1 is also a value, and lowering one's own priority is always allowed.
    unsafe { libc::nice(increment) };
}

/// `sysconf(_SC_MQ_PRIO_MAX)`
pub fn mq_prio_max() -> c_long {
    // SAFETY: no memory is passed.
    unsafe { libc::sysconf(libc::_SC_MQ_PRIO_MAX) }
}

//! Being told: mq_notify(3), signals that are waited for or interrupt a call, poll(2) and epoll(7) of one descriptor.

use super::{Result, ret};
use libc::{c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};

/// Takes over a descriptor that a call returned.
fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: the caller passes a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
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
    function: extern "C" fn(usize),
    attributes: *const c_void,
    unused: [usize; 4],
}

// union sigval is passed as the pointer it holds.
const _: () = assert!(size_of::<ThreadEvent>() == size_of::<libc::sigevent>() && size_of::<libc::sigval>() == 8);

unsafe extern "C" {
    #[link_name = "mq_notify"]
    fn libc_mq_notify(fd: c_int, event: *const ThreadEvent) -> c_int;
}

/// Runs in a thread of the C library: writes the thread's id to the descriptor that it was given.
extern "C" fn tell_thread(fd: usize) {
    // SAFETY: cannot fail, no memory is passed.
    let tid = unsafe { libc::gettid() };
    // SAFETY: the buffer is an int; a refused write is noticed by the reader's time limit.
    unsafe { libc::write(c_int::try_from(fd).unwrap_or(-1), (&raw const tid).cast(), size_of::<libc::pid_t>()) };
}

/// `mq_notify(fd, SIGEV_THREAD)`—the library's function: a thread of its own writes its id, four bytes, to `pipe`.
pub fn mq_notify_thread(fd: c_int, pipe: c_int) -> Result<()> {
    let event = ThreadEvent {
        value: usize::try_from(pipe).unwrap_or(usize::MAX),
        signal: 0,
        notify: libc::SIGEV_THREAD,
        function: tell_thread,
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

/// The system calls that [`poll_for`] may be, by their numbers: the C library chooses.
#[cfg(target_arch = "x86_64")]
pub const POLL_CALLS: &[libc::c_long] = &[libc::SYS_poll, libc::SYS_ppoll];
/// The system calls that [`poll_for`] may be, by their numbers: the C library chooses.
#[cfg(not(target_arch = "x86_64"))]
pub const POLL_CALLS: &[libc::c_long] = &[libc::SYS_ppoll];

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

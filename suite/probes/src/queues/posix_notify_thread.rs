//! mq_notify(3) with `SIGEV_THREAD`: what the kernel and the C library each do for it.

use super::posix_notify::expect_free;
use libc::{EAGAIN, EBADF, EFAULT, ENOTSOCK, O_NONBLOCK, O_WRONLY};
use shmcheck_probe::sys::{self, NOTIFY_COOKIE, Notify};
use shmcheck_probe::{Context, MqQueue, Probe, Stop, Sys, kernel, man, posix};
use std::io::Read;
use std::os::fd::AsRawFd;

/// The probes of this file.
pub(super) const PROBES: &[&Probe] = &[&SOCKET_WOKEN, &SOCKET_REMOVED, &SOCKET_BAD, &THREAD];

const COOKIE: [u8; NOTIFY_COOKIE] = *b"a cookie of thirty-two bytes....";

/// A queue whose next message comes back as a cookie through a socket, as SIGEV_THREAD of the C library has it.
fn cookie(cx: &mut Context) -> Result<(MqQueue, std::os::fd::OwnedFd), Stop> {
    let socket = sys::netlink_socket()
        .map_err(|e| Stop::skip("a netlink socket", format!("socket(AF_NETLINK) → {}", e.name())))?;
    let queue = cx.mq(O_NONBLOCK)?;
    sys::mq_notify_socket(queue.fd(), socket.as_raw_fd(), &COOKIE)?;
    Ok((queue, socket))
}

/// The cookie that was registered, with what the kernel puts into its last byte: 1 for a message, 2 for the end.
fn cookie_with(last: u8) -> Vec<u8> {
    let mut cookie = COOKIE.to_vec();
    cookie[NOTIFY_COOKIE - 1] = last;
    cookie
}

const SOCKET_WOKEN: Probe = Probe {
    title: "SIGEV_THREAD in the kernel: a message sends the cookie marked 1",
    why: "the C library starts the thread when this cookie arrives",
    spec: &[man("mq_notify(3)", "NOTES"), kernel("ipc/mqueue.c", "__do_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.socket-woken", |cx| {
        let (queue, socket) = cookie(cx)?;
        cx.expect_errno(EAGAIN, || sys::recv_now(socket.as_raw_fd(), 64))?;
        expect_free(cx, "before", &queue, false)?;
        queue.send(b"x", 0)?;
        cx.expect_eq("cookie", sys::recv_now(socket.as_raw_fd(), 64)?, cookie_with(1))?;
        expect_free(cx, "after", &queue, true)
    })
};

const SOCKET_REMOVED: Probe = Probe {
    title: "SIGEV_THREAD in the kernel: taking it back sends the cookie marked 2",
    why: "the C library frees the thread's memory on it; without it every registration leaks",
    spec: &[man("mq_notify(3)", "NOTES"), kernel("ipc/mqueue.c", "remove_notification")],
    calls: &[Sys::MqNotify, Sys::Close],
    ..Probe::new("posix.mq.notify.socket-removed", |cx| {
        let (queue, socket) = cookie(cx)?;
        sys::mq_notify(queue.fd(), None)?;
        cx.expect_eq("cookie after NULL", sys::recv_now(socket.as_raw_fd(), 64)?, cookie_with(2))?;
        // The end of any of the process's descriptors for the queue takes the registration back, too.
        let other = queue.open(O_WRONLY)?;
        sys::mq_notify_socket(other.as_raw_fd(), socket.as_raw_fd(), &COOKIE)?;
        drop(other);
        cx.expect_eq("cookie after close", sys::recv_now(socket.as_raw_fd(), 64)?, cookie_with(2))
    })
};

const SOCKET_BAD: Probe = Probe {
    title: "SIGEV_THREAD without a netlink socket is refused, the queue stays free",
    why: "runtimes that make the call themselves get here with a wrong descriptor",
    spec: &[kernel("ipc/mqueue.c", "do_mq_notify"), kernel("net/netlink/af_netlink.c", "netlink_getsockbyfilp")],
    calls: &[Sys::MqNotify],
    ..Probe::new("posix.mq.notify.socket-bad", |cx| {
        let (queue, socket) = cookie(cx)?;
        sys::mq_notify(queue.fd(), None)?;
        let (pipe, _writing) = sys::pipe()?;
        cx.expect_errno(EBADF, || sys::mq_notify_socket(queue.fd(), -1, &COOKIE))?;
        cx.expect_errno(ENOTSOCK, || sys::mq_notify_socket(queue.fd(), pipe.as_raw_fd(), &COOKIE))?;
        cx.expect_errno(EBADF, || sys::mq_notify_socket(-1, socket.as_raw_fd(), &COOKIE))?;
        cx.expect_errno(EBADF, || sys::mq_notify_socket(pipe.as_raw_fd(), socket.as_raw_fd(), &COOKIE))?;
        // The cookie lies in missing memory.
        cx.expect_errno(EFAULT, || {
            sys::mq_notify(queue.fd(), Some(Notify::Other(libc::SIGEV_THREAD, socket.as_raw_fd())))
        })?;
        expect_free(cx, "in the end", &queue, true)
    })
};

const THREAD: Probe = Probe {
    title: "SIGEV_THREAD of the library calls the function in another thread",
    why: "the portable way to be told; it needs threads, netlink and the kernel's cookies to work together",
    spec: &[man("mq_notify(3)", "SIGEV_THREAD"), posix("mq_notify")],
    calls: &[Sys::MqNotify, Sys::MqTimedsend],
    ..Probe::new("posix.mq.notify.thread", |cx| {
        drop(cookie(cx)?);
        let queue = cx.mq(O_NONBLOCK)?;
        let (reading, writing) = sys::pipe()?;
        // In a process of its own: the library's helper thread stays until the end of the process.
        cx.elsewhere(|cx| {
            cx.expect_ok(|| sys::mq_notify_thread(queue.fd(), writing.as_raw_fd()))?;
            queue.send(b"x", 0)?;
            if !sys::poll_in(&reading, 5_000)? {
                return cx.expect("call of the function", false, "within 5 s", "none");
            }
            let mut tid = [0; 4];
            std::fs::File::from(reading.try_clone()?).read_exact(&mut tid)?;
            cx.expect_ne("thread that ran the function", i32::from_ne_bytes(tid), sys::getpid())
        })
    })
};

//! What a file of tmpfs can do beyond shared memory: attributes, links, holes, handles, mounts.

use super::{Result, cstr, ret};
use libc::{c_int, c_uint, c_void, gid_t, mode_t, off_t, uid_t};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `fchmod(fd, mode)`
pub fn fchmod(fd: c_int, mode: mode_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("fchmod", unsafe { libc::fchmod(fd, mode) }).map(drop)
}

/// `fchown(fd, uid, gid)`
pub fn fchown(fd: c_int, uid: uid_t, gid: gid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("fchown", unsafe { libc::fchown(fd, uid, gid) }).map(drop)
}

/// `futimens(fd, {atime, mtime})`—whole seconds.
pub fn futimens(fd: c_int, access: i64, modification: i64) -> Result<()> {
    let times = [access, modification].map(|tv_sec| libc::timespec { tv_sec, tv_nsec: 0 });
    // SAFETY: the array has two elements.
    ret("futimens", unsafe { libc::futimens(fd, times.as_ptr()) }).map(drop)
}

/// `lseek(fd, offset, whence)`
pub fn lseek(fd: c_int, offset: off_t, whence: c_int) -> Result<off_t> {
    // SAFETY: no memory is passed.
    ret("lseek", unsafe { libc::lseek(fd, offset, whence) })
}

/// `read(fd, buffer)`—the number of bytes read.
pub fn read(fd: c_int, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    let n = ret("read", unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `write(fd, buffer)`—the number of bytes written.
pub fn write(fd: c_int, buffer: &[u8]) -> Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    let n = ret("write", unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `fsync(fd)`
pub fn fsync(fd: c_int) -> Result<()> {
    // SAFETY: no memory is passed.
    ret("fsync", unsafe { libc::fsync(fd) }).map(drop)
}

/// `symlink(target, path)`
pub fn symlink(target: &str, path: &str) -> Result<()> {
    let (target, path) = (cstr(target), cstr(path));
    // SAFETY: both are C strings that outlive the call.
    ret("symlink", unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }).map(drop)
}

/// `link(old, new)`
pub fn link(old: &str, new: &str) -> Result<()> {
    let (old, new) = (cstr(old), cstr(new));
    // SAFETY: both are C strings that outlive the call.
    ret("link", unsafe { libc::link(old.as_ptr(), new.as_ptr()) }).map(drop)
}

/// `linkat(AT_FDCWD, /proc/self/fd/FD, AT_FDCWD, path, AT_SYMLINK_FOLLOW)`—gives an open file a name.
pub fn link_descriptor(fd: &impl AsRawFd, path: &str) -> Result<()> {
    let (old, new) = (cstr(&format!("/proc/self/fd/{}", fd.as_raw_fd())), cstr(path));
    let here = libc::AT_FDCWD;
    // SAFETY: both are C strings that outlive the call.
    let value = unsafe { libc::linkat(here, old.as_ptr(), here, new.as_ptr(), libc::AT_SYMLINK_FOLLOW) };
    ret("linkat", value).map(drop)
}

/// `renameat2(AT_FDCWD, old, AT_FDCWD, new, flags)`
pub fn rename(old: &str, new: &str, flags: c_uint) -> Result<()> {
    let (old, new) = (cstr(old), cstr(new));
    // SAFETY: both are C strings that outlive the call.
    ret("renameat2", unsafe { libc::renameat2(libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), flags) })
        .map(drop)
}

/// `unlink(path)`
pub fn unlink(path: &str) -> Result<()> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("unlink", unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// `mkdir(path, mode)`
pub fn mkdir(path: &str, mode: mode_t) -> Result<()> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("mkdir", unsafe { libc::mkdir(path.as_ptr(), mode) }).map(drop)
}

/// `rmdir(path)`
pub fn rmdir(path: &str) -> Result<()> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("rmdir", unsafe { libc::rmdir(path.as_ptr()) }).map(drop)
}

/// `mkfifo(path, mode)`
pub fn mkfifo(path: &str, mode: mode_t) -> Result<()> {
    let path = cstr(path);
    // SAFETY: the path is a C string that outlives the call.
    ret("mkfifo", unsafe { libc::mkfifo(path.as_ptr(), mode) }).map(drop)
}

/// `fsetxattr(fd, name, value, flags)`
pub fn fsetxattr(fd: c_int, name: &str, value: &[u8], flags: c_int) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string; pointer and length are those of the slice.
    ret("fsetxattr", unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }).map(drop)
}

/// `fgetxattr(fd, name)`—the value as far as it fits into `room` bytes; 0 asks for nothing but the length.
pub fn fgetxattr(fd: c_int, name: &str, room: usize) -> Result<(usize, Vec<u8>)> {
    let (name, mut value) = (cstr(name), vec![0_u8; room]);
    // SAFETY: the name is a C string; pointer and length are those of the vector.
    let n = ret("fgetxattr", unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), room) } as i64)?;
    let length = usize::try_from(n).unwrap_or(0);
    value.truncate(length);
    Ok((length, value))
}

/// `flistxattr(fd)`—the names.
pub fn flistxattr(fd: c_int) -> Result<Vec<String>> {
    let mut names = vec![0_u8; 4096];
    // SAFETY: pointer and length are those of the vector.
    let n = ret("flistxattr", unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) } as i64)?;
    names.truncate(usize::try_from(n).unwrap_or(0));
    Ok(names.split(|b| *b == 0).filter(|s| !s.is_empty()).map(|s| String::from_utf8_lossy(s).into_owned()).collect())
}

/// `fremovexattr(fd, name)`
pub fn fremovexattr(fd: c_int, name: &str) -> Result<()> {
    let name = cstr(name);
    // SAFETY: the name is a C string that outlives the call.
    ret("fremovexattr", unsafe { libc::fremovexattr(fd, name.as_ptr()) }).map(drop)
}

/// Inode flag: nothing may change the file, ioctl_iflags(2).
pub const FS_IMMUTABLE_FL: c_int = 0x10;
/// Inode flag: the file may only grow.
pub const FS_APPEND_FL: c_int = 0x20;
/// Inode flag: dump(8) leaves the file out.
pub const FS_NODUMP_FL: c_int = 0x40;
/// Inode flag: the file is compressed.
pub const FS_COMPR_FL: c_int = 0x04;

/// `ioctl(fd, FS_IOC_GETFLAGS)`—the flags that chattr(1) shows.
pub fn inode_flags(fd: c_int) -> Result<c_int> {
    let mut flags: c_int = 0;
    // SAFETY: the kernel writes an int, whatever the request's number says.
    ret("ioctl(FS_IOC_GETFLAGS)", unsafe { libc::ioctl(fd, libc::FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags)
}

/// `ioctl(fd, FS_IOC_SETFLAGS, flags)`
pub fn set_inode_flags(fd: c_int, flags: c_int) -> Result<()> {
    // SAFETY: the kernel reads an int, whatever the request's number says.
    ret("ioctl(FS_IOC_SETFLAGS)", unsafe { libc::ioctl(fd, libc::FS_IOC_SETFLAGS, &raw const flags) }).map(drop)
}

/// Room for the longest handle, MAX_HANDLE_SZ of open_by_handle_at(2).
const HANDLE_ROOM: usize = 128;

/// A file handle, `struct file_handle` of open_by_handle_at(2).
#[repr(C)]
#[derive(Debug, Clone)]
pub struct Handle {
    bytes: c_uint,
    kind: c_int,
    content: [u8; HANDLE_ROOM],
}

const _: () = assert!(std::mem::offset_of!(Handle, content) == 8);

/// `name_to_handle_at(AT_FDCWD, path)`—the file's handle, with `room` bytes offered for it.
pub fn handle_of(path: &str, room: usize) -> Result<Handle> {
    let (path, mut mount) = (cstr(path), 0);
    let offered = c_uint::try_from(room.min(HANDLE_ROOM)).unwrap_or(0);
    let mut handle = Handle { bytes: offered, kind: 0, content: [0; HANDLE_ROOM] };
    let pointer: *mut libc::file_handle = (&raw mut handle).cast();
    // SAFETY: the handle has room for as many bytes as it says, and the mount id is an int.
    let value = unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), pointer, &raw mut mount, 0) };
    ret("name_to_handle_at", value).map(|_| handle)
}

/// `open_by_handle_at(mount, handle, flags)`
pub fn open_by_handle(mount: &impl AsRawFd, handle: &mut Handle, flags: c_int) -> Result<OwnedFd> {
    let pointer: *mut libc::file_handle = std::ptr::from_mut(handle).cast();
    // SAFETY: the handle has as many bytes as it says.
    let fd = ret("open_by_handle_at", unsafe { libc::open_by_handle_at(mount.as_raw_fd(), pointer, flags) })?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `mount("shmcheck", target, "tmpfs", flags, options)`
pub fn mount_tmpfs(target: &str, flags: libc::c_ulong, options: &str) -> Result<()> {
    let (target, options) = (cstr(target), cstr(options));
    let data: *const c_void = options.as_ptr().cast();
    // SAFETY: all strings are C strings that outlive the call.
    let value = unsafe { libc::mount(c"shmcheck".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), flags, data) };
    ret("mount", value).map(drop)
}

/// The size of a mounted file system and what is free, in its blocks: `statfs(path)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Blocks in all; 0 where tmpfs has no limit.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Inodes in all; 0 where tmpfs has no limit.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
    /// Size of a block in bytes.
    pub block: u64,
}

/// `statfs(path)`
pub fn room(path: &str) -> Result<Room> {
    let path = cstr(path);
    // SAFETY: statfs is plain numbers, for which zero is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and the buffer a struct statfs.
    ret("statfs", unsafe { libc::statfs(path.as_ptr(), &raw mut stat) })?;
    let block = u64::try_from(stat.f_bsize).unwrap_or(0);
    let (blocks, free) = (stat.f_blocks, stat.f_bfree);
    Ok(Room { blocks, free, inodes: stat.f_files, free_inodes: stat.f_ffree, block })
}

/// `fcntl(fd, command, {F_WRLCK, whole file})`—`F_SETLK` or `F_OFD_SETLK`.
pub fn lock(fd: c_int, command: c_int) -> Result<()> {
    // SAFETY: flock is plain numbers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the constants of l_type are small, whatever type libc gives them"
    )]
    {
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
    }
    // SAFETY: the command takes a struct flock.
    ret("fcntl", unsafe { libc::fcntl(fd, command, &raw mut lock) }).map(drop)
}

/// `splice(from, NULL, to, NULL, length, 0)`—the number of bytes moved.
pub fn splice(from: c_int, to: c_int, length: usize) -> Result<usize> {
    let null: *mut off_t = std::ptr::null_mut();
    // SAFETY: without offsets no memory is passed.
    let n = ret("splice", unsafe { libc::splice(from, null, to, null, length, 0) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `copy_file_range(from, NULL, to, NULL, length, 0)`—the number of bytes copied.
pub fn copy_range(from: c_int, to: c_int, length: usize) -> Result<usize> {
    let null: *mut off_t = std::ptr::null_mut();
    // SAFETY: without offsets no memory is passed.
    let n = ret("copy_file_range", unsafe { libc::copy_file_range(from, null, to, null, length, 0) } as i64)?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// `epoll_ctl(epoll, EPOLL_CTL_ADD, fd, {EPOLLIN})` on an epoll instance that is closed again.
pub fn epoll_watch(fd: c_int) -> Result<()> {
    // SAFETY: no memory is passed.
    let epoll = ret("epoll_create1", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call returned a descriptor that nobody else owns.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
    // SAFETY: the event is a struct epoll_event.
    ret("epoll_ctl", unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

//! Programs of a few instructions, for probes that must see what exec(2) does to descriptors and files.
//!
//! The image under test may hold no other program than the suite itself, so these are made in memory.

/// What a tiny program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiny {
    /// Ends with this code.
    Exit(u8),
    /// Asks `fcntl(fd, F_GETFD)` and ends with the errno of that, 0 where the descriptor is open.
    AskDescriptor(i32),
    /// Sleeps until it is killed.
    Sleep,
}

impl Tiny {
    /// The program as an ELF file; `None` on an architecture for which nobody wrote the instructions.
    pub fn elf(self) -> Option<Vec<u8>> {
        let (machine, code) = self.code()?;
        const HEADERS: u16 = 64 + 56;
        const BASE: u64 = 0x40_0000;
        let size = u64::from(HEADERS) + code.len() as u64;
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // Header: executable, machine, version, entry, program headers at 64, none of sections, flags, sizes.
        file.extend(2_u16.to_le_bytes());
        file.extend(machine.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for word in [BASE + u64::from(HEADERS), 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        // One segment: the whole file, readable and executable; aligned for pages of up to 64 KiB.
        file.extend(1_u32.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        for word in [0, BASE, BASE, size, size, 0x1_0000] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        Some(file)
    }

    #[cfg(target_arch = "x86_64")]
    fn code(self) -> Option<(u16, Vec<u8>)> {
        let mov = |register: u8, value: u32| {
            let mut bytes = vec![register];
            bytes.extend(value.to_le_bytes());
            bytes
        };
        let (eax, edi, esi) = (0xb8, 0xbf, 0xbe);
        let syscall = vec![0x0f, 0x05];
        let parts: Vec<Vec<u8>> = match self {
            Self::Exit(code) => vec![mov(eax, 60), mov(edi, code.into()), syscall],
            Self::AskDescriptor(fd) => vec![
                mov(eax, 72),
                mov(edi, fd.cast_unsigned()),
                mov(esi, 1),
                syscall.clone(),
                vec![0xf7, 0xd8, 0x89, 0xc7], // neg eax; mov edi, eax
                mov(eax, 60),
                syscall,
            ],
            Self::Sleep => vec![mov(eax, 34), syscall, vec![0xeb, 0xf7]], // pause; again
        };
        Some((62, parts.concat()))
    }

    #[cfg(target_arch = "aarch64")]
    fn code(self) -> Option<(u16, Vec<u8>)> {
        let mov = |register: u32, value: u32| 0xd280_0000 | value << 5 | register;
        const SVC: u32 = 0xd400_0001;
        let words: Vec<u32> = match self {
            Self::Exit(code) => vec![mov(0, code.into()), mov(8, 93), SVC],
            Self::AskDescriptor(fd) => {
                let fd = u32::try_from(fd).ok().filter(|fd| *fd < 1 << 16)?;
                vec![mov(0, fd), mov(1, 1), mov(8, 25), SVC, 0xcb00_03e0, mov(8, 93), SVC] // neg x0, x0
            }
            // ppoll(0, 0, 0, 0, 0); again
            Self::Sleep => vec![mov(0, 0), mov(1, 0), mov(2, 0), mov(3, 0), mov(4, 0), mov(8, 73), SVC, 0x17ff_fff9],
        };
        Some((183, words.into_iter().flat_map(u32::to_le_bytes).collect()))
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn code(self) -> Option<(u16, Vec<u8>)> {
        None
    }
}

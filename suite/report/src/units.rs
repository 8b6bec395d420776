//! Numbers as people read them.

/// A time in microseconds with two or three digits.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => format!("{} min {} s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

/// A time in milliseconds.
pub(crate) fn millis(ms: u64) -> String {
    if ms == 0 { "0 ms".to_owned() } else { micros(ms.saturating_mul(1_000)) }
}

/// A size in bytes, with a decimal where it is not a whole number of the unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenth = ((bytes >> (shift - 10)) & 1023) * 10 / 1024;
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{bytes} B")
}

/// A count with its noun in the right number.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("{n} {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, micros, millis};

    #[test]
    fn times() {
        let shown: Vec<_> = [0, 999, 1_250, 12_345, 1_204_999, 61_000_000].map(micros).into();
        assert_eq!(shown, ["0 µs", "999 µs", "1.2 ms", "12 ms", "1.20 s", "1 min 1 s"]);
        assert_eq!(millis(842), "842 ms");
        assert_eq!(millis(u64::MAX), micros(u64::MAX));
    }

    #[test]
    fn sizes_and_counts() {
        let shown: Vec<_> = [0, 1 << 10, 64 << 20, (39 << 30) / 10, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1 KiB", "64 MiB", "3.8 GiB", "16777215.9 TiB"]);
        assert_eq!([count(1, "cell"), count(0, "cell")], ["1 cell", "0 cells"]);
    }
}

//! System V keys of a run: which run and which probe made an object can be read off its key.
//!
//! A key is `0x5` in the top four bits, the run's tag, the probe's number, and a number within the probe. Keys of other
//! programs that happen to begin with 5 are told apart by the tag: `clean` only touches those of a dead run's tag.

/// Bits of the number within a probe.
const NUMBER_BITS: u32 = 8;
/// Bits of the probe's number in the catalogue.
const PROBE_BITS: u32 = 11;
/// Bits of the run's tag.
const TAG_BITS: u32 = 9;
const TOP: u32 = 0x5;

const _: () = assert!(4 + TAG_BITS + PROBE_BITS + NUMBER_BITS == u32::BITS);

/// How many different tags there are: as many runs of a user can be under way.
pub const TAGS: u32 = 1 << TAG_BITS;
/// How many probes a catalogue can have.
pub const PROBES: u32 = 1 << PROBE_BITS;
/// How many keys or names a probe can make.
pub const NUMBERS: u32 = 1 << NUMBER_BITS;

/// The key of a number within a probe within a run; never 0, so never `IPC_PRIVATE`.
pub const fn make(tag: u32, probe: u32, number: u32) -> i32 {
    let bits = (TOP << (TAG_BITS + PROBE_BITS + NUMBER_BITS))
        | ((tag % TAGS) << (PROBE_BITS + NUMBER_BITS))
        | ((probe % PROBES) << NUMBER_BITS)
        | (number % NUMBERS);
    bits.cast_signed()
}

/// Whether a key is of a run with this tag.
pub const fn has_tag(key: i32, tag: u32) -> bool {
    let bits = key.cast_unsigned();
    bits >> (PROBE_BITS + NUMBER_BITS) == (TOP << TAG_BITS) | (tag % TAGS)
}

/// Whether a key is of this probe, whatever the run.
pub const fn has_probe(key: i32, probe: u32) -> bool {
    key.cast_unsigned() >> NUMBER_BITS & (PROBES - 1) == probe % PROBES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_run_and_its_probe() {
        let key = make(300, 1_700, 7);
        assert!(has_tag(key, 300) && has_probe(key, 1_700) && key > 0);
        assert!(!has_tag(key, 301) && !has_probe(key, 1_701) && !has_tag(0, 0));
    }
}

//! Whatever is typed or put into a file: a clear error or a value, never a panic.

use proptest::prelude::*;
use shmcheck_probe::Sys;
use shmcheck_runner::environments;
use shmcheck_runner::seccomp::{Answer, Place, Profile, parse_kernel};
use shmcheck_runner::select::{Filter, near_misses};
use shmcheck_runner::spec::{Spec, parse_cap, parse_size, parse_user};

proptest! {
    #[test]
    fn any_environment_string_is_read_or_refused(text in "\\PC{0,60}") {
        if let Err(e) = environments::parse(&text) {
            prop_assert!(e.to_string().len() > text.len(), "the error says no more than the text");
        }
    }

    /// What looks right in its parts is taken apart and put together again.
    #[test]
    fn a_well_formed_string_survives(
        name in "[a-z]{1,8}",
        keys in prop::collection::vec(("[a-z][a-z-]{0,9}", "[a-zA-Z0-9./+:-]{1,12}"), 0..4),
    ) {
        let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let text = if pairs.is_empty() { name } else { format!("{name}:{}", pairs.join(",")) };
        let spec = Spec::parse(&text).expect("it is well formed");
        let again = Spec::parse(&spec.to_string()).expect("its own form is well formed");
        prop_assert_eq!(spec, again);
    }

    #[test]
    fn any_filter_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = Filter::parse(&text);
        let _ = near_misses(&[], &text);
    }

    #[test]
    fn numbers_are_exact_or_refused(text in "\\PC{0,24}", size in 0_u64..1 << 40, uid in 0_u32..u32::MAX) {
        let _ = (parse_size(&text), parse_user(&text), parse_cap(&text), parse_kernel(&text));
        prop_assert_eq!(parse_size(&size.to_string()), Some(size));
        prop_assert_eq!(parse_size(&format!("{}k", size)), Some(size << 10));
        prop_assert_eq!(parse_user(&uid.to_string()), Some((uid, uid)));
    }

    #[test]
    fn any_profile_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("it can be written");
        if let Err(e) = Profile::read(file.path()) {
            prop_assert!(e.to_string().contains("profile"));
        }
    }

    /// A profile that allows by default refuses what it names, with its errno, and nothing else.
    #[test]
    fn a_profile_answers_as_it_says(errno in 1_u32..130, index in 0..Sys::ALL.len()) {
        let call = Sys::ALL[index];
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{}"],"action":"SCMP_ACT_ERRNO","errnoRet":{errno}}}]}}"#,
            call.name()
        );
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        let profile = Profile::read(file.path()).expect("it is a profile");
        let place = Place { caps: caps::CapsHashSet::new(), kernel: (6, 1) };
        for other in Sys::ALL {
            let wanted = if *other == call { Answer::Errno(i32::try_from(errno).expect("it fits")) } else { Answer::Allow };
            prop_assert_eq!(profile.answer(*other, &place), wanted);
        }
    }
}

#[test]
fn every_profile_of_the_fixtures_is_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/seccomp");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("the fixtures are there").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            Profile::read(&entry.path()).unwrap_or_else(|e| panic!("{e}"));
            read += 1;
        }
    }
    assert!(read >= 6, "only {read} profiles");
}

//! The donor of an IPC namespace or of a /dev/shm ends while the joiner lives.

use super::{FIX, FROM_MAKER, MAKER, PARTIES, SEEKER};
use libc::O_RDWR;
use shmcheck_probe::{
    Act, Context, Map, Need, Object, Outcome, Probe, Scenario, Segment, Shared, Step, Sys, Values, doc, man, sys,
};

/// The scenarios of this file.
pub(super) const SCENARIOS: &[&Scenario] = &[&SEGMENTS, &OBJECTS];

/// The donor.
const DONOR: usize = MAKER;
/// The joiner, which lives on.
const JOINER: usize = SEEKER;

const VARIES: &str = "a namespace lives as long as a process or a file holds it; the engines refuse new joiners to a \
                      container that has ended, and a pod's infrastructure container holds it for all";

const SEGMENTS: Scenario = Scenario {
    probe: Probe {
        title: "segments stay when the environment they were shared with ends",
        why: "the sidecar that lent its namespace is restarted: the database that joined it must not lose its buffers",
        varies: VARIES,
        fix: FIX,
        spec: &[doc("ipc_namespaces(7)", "DESCRIPTION"), doc("namespaces(7)", "Namespace lifetime")],
        calls: &[Sys::Shmget, Sys::Shmat, Sys::Shmctl],
        ..Scenario::probe("scenario.lifetime.segments-stay")
    },
    shares: &[Shared::Ipc],
    parties: PARTIES,
    steps: &[
        Step::new(JOINER, "the joiner makes a segment", |cx, values| {
            let key = cx.fresh_key();
            let segment = cx.segment(key, sys::page_size(), 0o666)?;
            values.set("key", key);
            cx.keep("segment", segment);
            Ok(())
        }),
        Step::new(DONOR, "the donor writes into it", |cx, values| {
            let id = sys::shmget(values.number("key")?, 0, 0)?;
            let map = Map::attached(sys::shmat(id, 0)?, sys::page_size());
            map.write_all(0, FROM_MAKER);
            cx.keep("map", map);
            Ok(())
        }),
        Step::plain(DONOR, "the donor's environment ends", Act::Ends),
        Step::new(JOINER, "the joiner looks for it, and makes another", after_segments),
    ],
};

fn after_segments(cx: &mut Context, values: &mut Values) -> Outcome {
    let segment: Segment = cx.take("segment")?;
    let key = values.number("key")?;
    cx.expect_eq("identifier of the key", cx.expect_ok(|| sys::shmget(key, 0, 0))?, segment.id)?;
    cx.expect_eq("shm_nattch", segment.stat()?.nattch, 0)?;
    cx.expect_eq("content", segment.attach(0)?.read_all(0, FROM_MAKER.len()), FROM_MAKER.to_vec())?;
    let next = cx.fresh_key();
    let made = cx.expect_ok(|| Segment::get(next, sys::page_size(), sys::IPC_CREAT | sys::IPC_EXCL | 0o600))?;
    cx.expect_eq("identifier of the new key", sys::shmget(next, 0, 0)?, made.id)
}

const OBJECTS: Scenario = Scenario {
    probe: Probe {
        title: "objects stay in /dev/shm when the environment that lent it ends",
        why: "the joiner's mount is the donor's file system: an engine that empties it on the donor's end takes the memory of \
              the living with it",
        varies: VARIES,
        fix: FIX,
        spec: &[man("shm_overview(7)", "Persistence"), doc("mount_namespaces(7)", "DESCRIPTION")],
        calls: &[Sys::Mmap, Sys::Ftruncate],
        needs: &[Need::DevShm],
        ..Scenario::probe("scenario.lifetime.objects-stay")
    },
    shares: &[Shared::DevShm],
    parties: PARTIES,
    steps: &[
        Step::new(JOINER, "the joiner makes an object", |cx, values| {
            sys::umask(0);
            let object = Object::create(cx.fresh_name(), sys::page_size(), 0o666)?;
            values.set("name", object.name.clone());
            cx.keep("object", object);
            Ok(())
        }),
        Step::new(DONOR, "the donor writes into it", |cx, values| {
            let fd = sys::shm_open(values.text("name")?, O_RDWR, 0)?;
            let map = Map::shared(&fd, sys::page_size())?;
            map.write_all(0, FROM_MAKER);
            cx.keep("map", map);
            Ok(())
        }),
        Step::plain(DONOR, "the donor's environment ends", Act::Ends),
        Step::new(JOINER, "the joiner opens it anew, and makes another", |cx, values| {
            let _object: Object = cx.take("object")?;
            let name = values.text("name")?;
            let fd = cx.expect_ok(|| sys::shm_open(name, O_RDWR, 0))?;
            let map = Map::shared(&fd, sys::page_size())?;
            cx.expect_eq("content", map.read_all(0, FROM_MAKER.len()), FROM_MAKER.to_vec())?;
            let next = cx.fresh_name();
            let made = cx.expect_ok(|| Object::create(next, sys::page_size(), 0o600))?;
            cx.expect_eq("size of the new object", made.stat()?.st_size, i64::try_from(sys::page_size()).unwrap_or(0))
        }),
    ],
};

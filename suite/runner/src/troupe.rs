//! A troupe: the agents of a constellation's parties, which perform scenarios together.

use crate::cell::{END_PATIENCE, RECORD_PATIENCE, TICK, Trouble, Visit};
use crate::constellation::{Constellation, reference, resolved};
use crate::environment::Tools;
use crate::launch::{Launch, RUN_VARIABLE};
use crate::run::Order;
use crate::session::{Heard, Session};
use shmcheck_probe::{Act, Scenario, Stop, Values, Verdict};
use shmcheck_protocol::{Event, Facts, Inventory, Record, Request};
use std::time::{Duration, Instant};

/// The most parties of a constellation; their numbers among containers are counted in it.
const MOST_PARTIES: usize = 16;
/// Where the numbers of parties begin: no cell of a run has such a number.
const FIRST_NUMBER: usize = 1_000_000;

/// How long an environment that is to end before the others may take: its agent ends at once, but Podman's client then
/// waits for the containers that joined it, which are to stay.
const EARLY_PATIENCE: Duration = Duration::from_secs(3);

/// A party's agent.
pub(crate) struct Member {
    /// `None` once its environment has ended.
    session: Option<Session>,
    pub(crate) launch: Launch,
    pub(crate) facts: Facts,
    before: Inventory,
    entered: bool,
}

/// The parties' agents, in order.
pub(crate) struct Troupe {
    pub(crate) members: Vec<Member>,
}

/// What came of a scenario.
pub(crate) struct Performed {
    pub(crate) record: Record,
    /// The party that stopped it.
    pub(crate) party: usize,
    /// Whether the agents can be asked for another one.
    pub(crate) intact: bool,
}

impl Troupe {
    /// Starts the parties one by one: a later one may join an earlier one's container.
    pub(crate) fn gather(constellation: &Constellation, number: usize, order: &Order) -> Result<Self, String> {
        let mut troupe = Self { members: Vec::new() };
        for n in 0..constellation.parties.len() {
            if let Err(reason) = troupe.admit(constellation, n, number, order) {
                troupe.dismiss();
                return Err(format!("party {} ({}): {reason}", n + 1, constellation.parties[n].spec));
            }
        }
        Ok(troupe)
    }

    fn admit(&mut self, constellation: &Constellation, n: usize, number: usize, order: &Order) -> Result<(), String> {
        let party = &constellation.parties[n];
        let number = FIRST_NUMBER + number * MOST_PARTIES + n;
        let tools = Tools { exe: order.exe.clone(), run: order.run.clone(), number };
        let donor = reference(&party.spec).and_then(|n| self.members.get(n.checked_sub(1)?)?.launch.container.clone());
        let spec = donor.map_or_else(|| party.spec.clone(), |name| resolved(&party.spec, &name));
        let mut launch = party.environment.launch(&spec, &tools).map_err(|missing| missing.to_string())?;
        launch.env.push((RUN_VARIABLE.to_owned(), order.run.clone()));
        let visit = Visit::begin(&launch).map_err(|trouble| {
            launch.undo();
            match trouble {
                Trouble::Absent(reason) | Trouble::Rubbish(reason) => reason,
            }
        })?;
        party.environment.learn(&mut launch);
        let before = visit.facts.inventory.clone();
        self.members.push(Member { session: Some(visit.session), launch, facts: *visit.facts, before, entered: false });
        Ok(())
    }

    /// Plays a scenario from the first step to the last, and counts what it leaves.
    pub(crate) fn perform(&mut self, scenario: &Scenario, values: Values, order: &Order) -> Performed {
        let played = self.play(scenario, values, order);
        match played.and_then(|(party, record)| self.leave(party, record, order)) {
            Ok((party, record)) => Performed { record, party, intact: true },
            Err(Lost { party, problem }) => {
                let record = Record::new(scenario.probe.id, Err(Stop::broken(self.placed(party, &problem))), 0);
                Performed { record, party, intact: false }
            }
        }
    }

    /// The steps, up to the first that does not pass; the party and the record of it.
    fn play(&mut self, scenario: &Scenario, mut values: Values, order: &Order) -> Result<(usize, Record), Lost> {
        let id = scenario.probe.id;
        for party in 0..scenario.parties.len() {
            let (record, _) = self.act(party, &enter(scenario, party, order), order)?;
            if record.outcome != Verdict::Pass {
                return Ok((party, record));
            }
            self.members[party].entered = true;
        }
        let mut duration = 0;
        for (number, step) in scenario.steps.iter().enumerate() {
            let mut record = Record::new(id, Ok(()), 0);
            match step.act {
                Act::Run(_) => {
                    (record, values) = self.act(step.party, &Request::Step { step: number, values }, order)?;
                }
                Act::Killed => {
                    (record, _) = self.act(step.party, &Request::Leave { killed: true }, order)?;
                    self.members[step.party].entered = false;
                }
                Act::Ends => self.members[step.party].end(EARLY_PATIENCE),
            }
            duration += record.duration_us;
            if record.outcome != Verdict::Pass {
                let place = self.placed(step.party, step.what);
                record.detail.message = Some(match record.detail.message {
                    Some(message) => format!("{place}: {message}"),
                    None => place,
                });
                return Ok((step.party, Record { duration_us: duration, ..record }));
            }
        }
        Ok((0, Record::new(id, Ok(()), duration)))
    }

    /// Ends the actors, the last party's first; a leftover turns a pass into broken.
    fn leave(&mut self, party: usize, record: Record, order: &Order) -> Result<(usize, Record), Lost> {
        let (mut party, mut record) = (party, record);
        for n in (0..self.members.len()).rev().filter(|n| self.members[*n].entered).collect::<Vec<_>>() {
            let (left, _) = self.act(n, &Request::Leave { killed: false }, order)?;
            self.members[n].entered = false;
            if record.outcome == Verdict::Pass && left.outcome != Verdict::Pass {
                (party, record) = (n, left);
            }
        }
        // Counted when all have left: what one party made, another may have held until now.
        for n in 0..self.members.len() {
            if self.members[n].session.is_none() {
                continue;
            }
            let Event::Inventory(now) = self.ask(n, &Request::Inventory, order)? else {
                return Err(Lost {
                    party: n,
                    problem: "the agent answered something else than an inventory".to_owned(),
                });
            };
            let before = std::mem::replace(&mut self.members[n].before, now.clone());
            let left = now.since(&before, &order.run, order.tag, true);
            if record.outcome == Verdict::Pass && !left.is_empty() {
                let text = self.placed(n, &format!("the scenario left behind: {}", left.join(", ")));
                (party, record) = (n, Record::new(&record.id, Err(Stop::broken(text)), record.duration_us));
            }
        }
        Ok((party, record))
    }

    /// A request that is answered with a record.
    fn act(&mut self, party: usize, request: &Request, order: &Order) -> Result<(Record, Values), Lost> {
        match self.ask(party, request, order)? {
            Event::Acted { record, values } => Ok((record, values)),
            Event::Error { message } => Err(Lost { party, problem: format!("the agent cannot go on: {message}") }),
            _ => Err(Lost { party, problem: "the agent sent what was not asked for".to_owned() }),
        }
    }

    fn ask(&mut self, party: usize, request: &Request, order: &Order) -> Result<Event, Lost> {
        let lost = |problem: String| Lost { party, problem };
        let Some(session) = &mut self.members[party].session else {
            return Err(lost("its environment has ended".to_owned()));
        };
        session.send(request).map_err(|e| lost(format!("failed to send a request to the agent: {e}")))?;
        let (start, patience) = (Instant::now(), order.deadline + RECORD_PATIENCE);
        loop {
            if order.is_stopped() {
                return Err(lost("the run was interrupted".to_owned()));
            }
            match session.hear(TICK) {
                Heard::Event(event) => return Ok(*event),
                Heard::Rubbish(problem) => return Err(lost(format!("the agent answered {problem}"))),
                Heard::Ended => return Err(lost(format!("the agent ended: {}", session.stderr()))),
                Heard::Silence if start.elapsed() > patience => {
                    return Err(lost(format!("the agent sent nothing for {} s", patience.as_secs())));
                }
                Heard::Silence => {}
            }
        }
    }

    /// Words about a party, for whoever reads a report.
    fn placed(&self, party: usize, words: &str) -> String {
        format!("party {} of {}: {words}", party + 1, self.members.len())
    }

    /// Ends the agents, the last first: it may be in the first one's container.
    pub(crate) fn dismiss(mut self) {
        let early: Vec<bool> = self.members.iter().map(|member| member.session.is_none()).collect();
        self.members.iter_mut().rev().for_each(|member| member.end(END_PATIENCE));
        // Podman keeps a donor's container while another is joined to it; now none is.
        for (member, _) in self.members.iter().zip(early).filter(|(_, early)| *early) {
            member.launch.undo();
        }
    }
}

/// An agent that does not answer as one.
struct Lost {
    party: usize,
    problem: String,
}

impl Member {
    fn end(&mut self, patience: Duration) {
        self.entered = false;
        if let Some(session) = self.session.take()
            && session.end(patience).is_none()
        {
            self.launch.undo();
        }
    }
}

fn enter(scenario: &Scenario, party: usize, order: &Order) -> Request {
    Request::Enter {
        scenario: scenario.probe.id.to_owned(),
        party,
        run: order.run.clone(),
        tag: order.tag,
        deadline_ms: u64::try_from(order.deadline.as_millis()).unwrap_or(u64::MAX),
    }
}

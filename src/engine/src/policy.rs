//! The one fault policy: what the engine does after an error, by its [`Fault`].
//!
//! | fault | what follows |
//! |---|---|
//! | `Transient` | reopen from the stored position after an exponential, jittered delay |
//! | `Config`, `Data` | park: shown with the hint; looked at again every minute, for the operator may have mended it |
//! | `Fenced` | let go, wait, claim again; after [`FENCED_PER_HOUR`] in an hour park for longer: two daemons fight, or the network does |
//! | `Bug` | stop for good |

use caudal_core::Fault;
use rand::Rng;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Times that a pipeline may lose its claim within an hour before it rests.
pub const FENCED_PER_HOUR: usize = 10;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const PARKED: Duration = Duration::from_secs(60);
const AFTER_FENCE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reopen after this delay.
    Retry(Duration),
    /// Show it to the operator, look again after this delay.
    Park(Duration),
    /// Claim again after this delay.
    Rejoin(Duration),
    /// Never by itself.
    Stop,
}

/// Remembers what happened, to space the attempts.
#[derive(Debug, Default)]
pub struct Policy {
    failures: u32,
    fenced: VecDeque<Instant>,
}

impl Policy {
    /// A commit went through: the next error starts from the shortest delay.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Decides, with `rng` for the jitter.
    pub fn decide(&mut self, fault: Fault, now: Instant, rng: &mut impl Rng) -> Next {
        match fault {
            Fault::Transient => {
                self.failures = self.failures.saturating_add(1);
                Next::Retry(jittered(self.failures, rng))
            }
            Fault::Config | Fault::Data => Next::Park(PARKED),
            Fault::Fenced => self.fenced(now, rng),
            Fault::Bug => Next::Stop,
        }
    }

    fn fenced(&mut self, now: Instant, rng: &mut impl Rng) -> Next {
        self.fenced.retain(|at| now.duration_since(*at) < HOUR);
        self.fenced.push_back(now);
        if self.fenced.len() > FENCED_PER_HOUR {
            return Next::Park(REST);
        }
        Next::Rejoin(AFTER_FENCE.mul_f64(rng.random_range(0.75..1.25)))
    }
}

/// Doubles from 200 ms to 30 s; each delay is drawn from its upper half, so that pipelines that failed together spread out.
fn jittered(failures: u32, rng: &mut impl Rng) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_DELAY);
    full.mul_f64(rng.random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn transient_faults_back_off_to_a_bound_and_start_anew_after_success() {
        let (mut policy, mut rng, now) = (Policy::default(), SmallRng::seed_from_u64(1), Instant::now());
        let mut delay = |policy: &mut Policy| match policy.decide(Fault::Transient, now, &mut rng) {
            Next::Retry(delay) => delay,
            other => panic!("{other:?}"),
        };
        assert!(delay(&mut policy) <= FIRST_DELAY);
        for _ in 0..40 {
            assert!(delay(&mut policy) <= LONGEST_DELAY);
        }
        assert!(delay(&mut policy) >= LONGEST_DELAY / 2);
        policy.succeeded();
        assert!(delay(&mut policy) <= FIRST_DELAY);
    }

    #[test]
    fn each_fault_has_its_own_answer() {
        let (mut policy, mut rng, now) = (Policy::default(), SmallRng::seed_from_u64(1), Instant::now());
        assert!(matches!(policy.decide(Fault::Config, now, &mut rng), Next::Park(_)));
        assert!(matches!(policy.decide(Fault::Data, now, &mut rng), Next::Park(_)));
        assert_eq!(policy.decide(Fault::Bug, now, &mut rng), Next::Stop);
    }

    #[test]
    fn a_pipeline_that_is_fenced_again_and_again_rests() {
        let (mut policy, mut rng, now) = (Policy::default(), SmallRng::seed_from_u64(1), Instant::now());
        for _ in 0..FENCED_PER_HOUR {
            assert!(matches!(policy.decide(Fault::Fenced, now, &mut rng), Next::Rejoin(_)));
        }
        assert_eq!(policy.decide(Fault::Fenced, now, &mut rng), Next::Park(REST));
        assert!(matches!(policy.decide(Fault::Fenced, now + HOUR, &mut rng), Next::Rejoin(_)));
    }
}

//! The endpoints behind the gateway, and the choice among them: by priority, then by weight or in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dial::dns::Service;
use rand::Rng;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) service: Service,
    active: AtomicBool,
}

impl Endpoint {
    /// An endpoint that counts as one that answers.
    pub(super) fn new(service: Service) -> Self {
        Self { service, active: AtomicBool::new(true) }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        let Service { target, port, .. } = &self.service;
        match target.contains(':') {
            true => format!("[{target}]:{port}"),
            false => format!("{target}:{port}"),
        }
    }

    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
}

/// All endpoints.
pub(super) struct Endpoints {
    all: Vec<Arc<Endpoint>>,
    turn: AtomicUsize,
}

impl Endpoints {
    pub(super) fn new(all: Vec<Endpoint>) -> Self {
        Self { all: all.into_iter().map(Arc::new).collect(), turn: AtomicUsize::new(0) }
    }

    pub(super) fn inactive(&self) -> Vec<Arc<Endpoint>> {
        self.all.iter().filter(|it| !it.is_active()).cloned().collect()
    }

    /// [`Self::pick`] by chance.
    pub(super) fn draw(&self) -> Option<Arc<Endpoint>> {
        self.pick(&mut rand::rng())
    }

    /// An active endpoint of the best priority; none if there is none. Endpoints with weights are chosen by them, and one
    /// without weight among them once in a hundred times (RFC 2782 asks for a very small chance); otherwise each has its turn.
    fn pick(&self, random: &mut impl Rng) -> Option<Arc<Endpoint>> {
        let active = || self.all.iter().filter(|it| it.is_active());
        let best = active().map(|it| it.service.priority).min()?;
        let best = active().filter(|it| it.service.priority == best);
        let (weighted, unweighted): (Vec<_>, Vec<_>) = best.partition(|it| it.service.weight > 0);
        let in_turn = |among: &[&Arc<Endpoint>]| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            Some(Arc::clone(among[turn % among.len()]))
        };
        if weighted.is_empty() || (!unweighted.is_empty() && random.random_range(0..100) == 0) {
            return in_turn(&unweighted);
        }
        let sum: u32 = weighted.iter().map(|it| u32::from(it.service.weight)).sum();
        let mut drawn = random.random_range(0..sum);
        weighted.into_iter().find_map(|it| {
            let weight = u32::from(it.service.weight);
            let chosen = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            chosen.then(|| Arc::clone(it))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(of: &[(u16, u16, u16)]) -> Endpoints {
        let endpoint = |(port, priority, weight): &(u16, u16, u16)| {
            Endpoint::new(Service {
                target: "h".to_owned(),
                port: *port,
                priority: *priority,
                weight: *weight,
            })
        };
        Endpoints::new(of.iter().map(endpoint).collect())
    }

    fn counts(endpoints: &Endpoints, ports: usize) -> Vec<usize> {
        let mut counts = vec![0; ports];
        for _ in 0..6000 {
            let picked = endpoints.pick(&mut rand::rng()).expect("one is active");
            counts[usize::from(picked.service.port)] += 1;
        }
        counts
    }

    #[test]
    fn endpoints_without_weight_take_turns() {
        let all = endpoints(&[(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
        assert_eq!(counts(&all, 3), [2000, 2000, 2000]);
        all.all[1].set_active(false);
        assert_eq!(counts(&all, 3), [3000, 0, 3000]);
        assert_eq!(all.inactive().len(), 1);
        all.all.iter().for_each(|it| it.set_active(false));
        assert!(all.pick(&mut rand::rng()).is_none());
    }

    #[test]
    fn priorities_come_before_weights() {
        let all = endpoints(&[(0, 1, 0), (1, 0, 10), (2, 0, 30), (3, 0, 0)]);
        let seen = counts(&all, 4);
        assert_eq!(seen[0], 0, "{seen:?}");
        assert!(seen[1] > 1200 && seen[2] > 4000 && seen[3] > 10 && seen[3] < 150, "{seen:?}");
        all.all[1].set_active(false);
        all.all[2].set_active(false);
        assert_eq!(counts(&all, 4)[3], 6000);
        all.all[3].set_active(false);
        assert_eq!(counts(&all, 4)[0], 6000, "the next priority");
    }
}

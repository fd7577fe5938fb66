//! A change of `replicas` outside or in the middle of a rollout: all active ReplicaSets grow or shrink in
//! proportion, so that resizing does not hasten a rollout that may be going wrong.

use super::{
    revision,
    rollout::{Planned, Rollout},
};

impl Rollout<'_> {
    /// `replicas` is no longer what the ReplicaSets were sized for.
    pub fn was_scaled(&self) -> bool {
        let sized_for = self
            .all()
            .filter(|planned| planned.is_active())
            .filter_map(|planned| revision::number(&planned.set, revision::DESIRED));
        let wanted = self.wanted();
        sized_for.into_iter().any(|desired| desired != wanted)
    }

    /// Resizes without any other step of a rollout.
    pub fn resize(&mut self) {
        let wanted = self.wanted();
        let active: Vec<usize> =
            self.old.iter().enumerate().filter(|(_, old)| old.is_active()).map(|(at, _)| at).collect();
        let new_is_active = self.new.as_ref().is_some_and(Planned::is_active);
        match (active.as_slice(), new_is_active) {
            ([], _) if self.new.is_some() => self.scale_new(wanted),
            ([], _) if self.old.is_empty() => (),
            ([], _) => self.scale_old([(self.old.len() - 1, wanted)]),
            ([only], false) => self.scale_old([(*only, wanted)]),
            _ if self.is_saturated() => self.scale_old(active.into_iter().map(|position| (position, 0))),
            _ if super::is_recreate(self.deployment) => (),
            _ => self.resize_proportionally(),
        }
    }

    /// The new ReplicaSet is as large as it should be, all of it available.
    fn is_saturated(&self) -> bool {
        let wanted = self.wanted();
        self.new.as_ref().is_some_and(|new| {
            let desired = revision::number(&new.set, revision::DESIRED);
            new.replicas() == wanted && desired == Some(wanted) && new.available() == wanted
        })
    }

    /// The largest ReplicaSet first; among equals the newest first when growing, the oldest first when shrinking.
    fn resize_proportionally(&mut self) {
        let allowed = if self.wanted() > 0 { self.wanted() + self.surge_max() } else { 0 };
        let to_add = allowed - self.total();
        let new = self.new.take();
        let mut sets: Vec<Planned> = self.old.drain(..).chain(new.clone()).collect();
        sets.sort_by(|a, b| {
            let by_age = if to_add > 0 { b.age().cmp(&a.age()) } else { a.age().cmp(&b.age()) };
            b.replicas().cmp(&a.replicas()).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::new();
        for planned in &sets {
            let share = self.share(planned, to_add, added);
            added += share;
            sizes.push(planned.replicas() + share);
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (planned, size) in sets.iter_mut().zip(sizes) {
            if planned.is_active() {
                self.scale(planned, size, true);
            }
        }
        sets.sort_by(|a, b| a.age().cmp(&b.age()));
        let is_new =
            |planned: &Planned| new.as_ref().is_some_and(|new| new.set.metadata.name == planned.set.metadata.name);
        self.new = sets.iter().position(is_new).map(|position| sets.remove(position));
        self.old = sets;
    }

    /// How many of `to_add` Pods a ReplicaSet gets, `added` being given out already; negative to shrink.
    fn share(&self, planned: &Planned, to_add: i32, added: i32) -> i32 {
        if planned.replicas() == 0 || to_add == added {
            return 0;
        }
        let (fraction, left) = (self.fraction(planned), to_add - added);
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, planned: &Planned) -> i32 {
        if self.wanted() == 0 {
            return -planned.replicas();
        }
        let total_before = revision::number(&planned.set, revision::MAX).filter(|max| *max != 0);
        let Some(total_before) = total_before.or(self.status.replicas.filter(|total| *total != 0)) else { return 0 };
        let total = f64::from(self.wanted() + self.surge_max());
        let size = f64::from(planned.replicas()) * total / f64::from(total_before);
        // Sizes are `int32` in the API, and a share of one is one.
        #[allow(clippy::cast_possible_truncation)]
        let rounded = size.round() as i32;
        rounded - planned.replicas()
    }
}

//! RollingUpdate: up with the new ReplicaSet where surge allows, down with the old where availability allows.

use super::rollout::{Planned, Rollout};

impl Rollout<'_> {
    /// One step; the next one follows when Pods have come or gone.
    pub fn roll(&mut self) {
        if self.require_new().is_none() || self.step_up() || self.step_down() {
            return;
        }
        if self.is_complete(&self.status) {
            self.clean_up();
        }
    }

    /// Whether the new ReplicaSet was resized.
    fn step_up(&mut self) -> bool {
        let Some(have) = self.new.as_ref().map(Planned::replicas) else { return false };
        let wanted = self.wanted();
        let room = (wanted + self.surge_max() - self.total()).max(0);
        let size = if have > wanted { wanted } else { have + room.min(wanted - have) };
        self.scale_new(size);
        size != have
    }

    /// Whether an old ReplicaSet was resized. Pods that are not available go first: they cost nothing.
    fn step_down(&mut self) -> bool {
        let before: Vec<i32> = self.old.iter().map(Planned::replicas).collect();
        let available_min = self.wanted() - self.unavailable_max();
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.replicas() - new.available());
        let surplus = self.total() - available_min - new_unavailable;
        if before.iter().sum::<i32>() == 0 || surplus <= 0 {
            return false;
        }
        self.drop_unavailable(surplus);
        let available: i32 = self.all().map(Planned::available).sum();
        self.drop_available(available - available_min);
        self.old.iter().map(Planned::replicas).ne(before)
    }

    fn drop_unavailable(&mut self, mut surplus: i32) {
        let mut sizes = Vec::new();
        for (position, planned) in self.old.iter().enumerate() {
            let dropped = (planned.replicas() - planned.available()).clamp(0, surplus.max(0));
            surplus -= dropped;
            sizes.push((position, planned.replicas() - dropped));
        }
        self.scale_old(sizes);
    }

    fn drop_available(&mut self, mut surplus: i32) {
        let mut sizes = Vec::new();
        for (position, planned) in self.old.iter().enumerate() {
            let dropped = planned.replicas().min(surplus.max(0));
            surplus -= dropped;
            sizes.push((position, planned.replicas() - dropped));
        }
        self.scale_old(sizes);
    }
}

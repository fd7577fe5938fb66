//! Owners that the server has said do not exist: a uid never comes back, so nobody needs to ask twice.

use std::collections::{HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Owners remembered; the oldest are forgotten beyond it.
const OWNERS_MAX: usize = 500;

/// apiVersion, kind, name, uid, and the namespace that was searched.
type Coordinates = [String; 5];

/// The last owners found absent.
#[derive(Debug, Default)]
pub struct Absent {
    known: HashSet<Coordinates>,
    by_age: VecDeque<Coordinates>,
}

fn coordinates(owner: &OwnerReference, namespace: &str) -> Coordinates {
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    [api_version, kind, name, uid, namespace].map(|part| part.to_string())
}

impl Absent {
    pub fn contains(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.known.contains(&coordinates(owner, namespace))
    }

    pub fn add(&mut self, owner: &OwnerReference, namespace: &str) {
        let coordinates = coordinates(owner, namespace);
        if !self.known.insert(coordinates.clone()) {
            return;
        }
        self.by_age.push_back(coordinates);
        if self.by_age.len() > OWNERS_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let owner = |number: usize| OwnerReference { uid: number.to_string(), ..OwnerReference::default() };
        let mut absent = Absent::default();
        (0..=OWNERS_MAX).for_each(|number| absent.add(&owner(number), "n"));
        assert!(!absent.contains(&owner(0), "n") && absent.contains(&owner(1), "n"));
        assert!(!absent.contains(&owner(1), "elsewhere"));
        assert_eq!((absent.known.len(), absent.by_age.len()), (OWNERS_MAX, OWNERS_MAX));
    }
}

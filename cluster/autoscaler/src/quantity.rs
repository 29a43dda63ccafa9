//! Kubernetes' quantities, and sums of them.

use std::collections::BTreeMap;

use cluster_api::quantity::{split, unit};

/// The name of cores, counted in thousandths.
const CPU: &str = "cpu";
/// The name of memory, counted in bytes.
const MEMORY: &str = "memory";
/// The name of the number of pods.
const PODS: &str = "pods";

/// Requests of pods, or resources of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// Cores, thousandths.
    pub cpu: u64,
    /// Memory, bytes.
    pub memory: u64,
    /// Number of pods.
    pub pods: u64,
    /// Other resources by name, in units. A node that does not name a resource of [`Self::UNBOUNDED`] has no
    /// limit for it.
    pub others: BTreeMap<String, u64>,
}

impl Resources {
    /// Prefixes of resources that are unlimited unless a node has a limit: attachable volumes, local disk.
    const UNBOUNDED: [&'static str; 2] = ["attachable-volumes-", "ephemeral-storage"];

    /// Adds an amount. A malformed one counts as 0.
    pub fn add_text(&mut self, name: &str, text: &str) {
        let thousandths = thousandths(text).unwrap_or(0);
        let units = u64::try_from(thousandths.div_ceil(1000)).unwrap_or(u64::MAX);
        match name {
            CPU => {
                let own = u64::try_from(thousandths).unwrap_or(u64::MAX);
                self.cpu = self.cpu.saturating_add(own);
            }
            MEMORY => self.memory = self.memory.saturating_add(units),
            PODS => self.pods = self.pods.saturating_add(units),
            other => {
                let sum = self.others.entry(other.to_owned()).or_default();
                *sum = sum.saturating_add(units);
            }
        }
    }

    /// Adds all amounts of another one.
    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.others {
            let sum = self.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Subtracts another one, down to 0. Resources without an amount here stay absent.
    pub fn take(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.pods = self.pods.saturating_sub(other.pods);
        for (name, amount) in &other.others {
            if let Some(left) = self.others.get_mut(name) {
                *left = left.saturating_sub(*amount);
            }
        }
    }

    /// The first resource of a request that does not fit beside the used amounts; `None`: it fits. A resource
    /// with a request of 0 always fits.
    pub fn lacks<'r>(&self, used: &Self, request: &'r Self) -> Option<&'r str> {
        let over = |all: u64, used: u64, more: u64| more > 0 && used.saturating_add(more) > all;
        if over(self.cpu, used.cpu, request.cpu) {
            return Some(CPU);
        }
        if over(self.memory, used.memory, request.memory) {
            return Some(MEMORY);
        }
        if over(self.pods, used.pods, request.pods) {
            return Some(PODS);
        }
        let lacking = request.others.iter().find(|(name, more)| {
            let unbounded = Self::UNBOUNDED.iter().any(|prefix| name.starts_with(prefix));
            let used = used.others.get(*name).copied().unwrap_or(0);
            match self.others.get(*name) {
                Some(all) => over(*all, used, **more),
                None => !unbounded && **more > 0,
            }
        });
        lacking.map(|(name, _)| name.as_str())
    }
}

/// Thousandths of a quantity, rounded up. `None`: it is malformed.
fn thousandths(text: &str) -> Option<u128> {
    let (number, suffix) = split(text);
    let (factor, power) = unit(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let power = power
        .checked_add(3)?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(factor)?;
    let tens = 10_u128.checked_pow(power.unsigned_abs())?;
    if power < 0 {
        Some(value.div_ceil(tens))
    } else {
        value.checked_mul(tens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cpu: &str, memory: &str) -> Resources {
        let mut sum = Resources::default();
        sum.add_text(CPU, cpu);
        sum.add_text(MEMORY, memory);
        sum
    }

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, cpu) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5", 1500),
            ("2e0", 2000),
            ("1u", 1),
        ] {
            assert_eq!(of(text, "0").cpu, cpu, "{text}");
        }
        for (text, memory) in [
            ("1Ki", 1024),
            ("1Gi", 1 << 30),
            ("5M", 5_000_000),
            ("1500m", 2),
            ("12", 12),
        ] {
            assert_eq!(of("0", text).memory, memory, "{text}");
        }
        for wrong in ["", "x", "-1", "1.2.3", "1 Gi"] {
            assert_eq!(of(wrong, wrong), Resources::default(), "{wrong}");
        }
    }

    #[test]
    fn what_a_node_does_not_name_is_lacking_but_for_what_is_not_limited() {
        let node = of("1", "1Gi");
        let mut request = of("1", "1Gi");
        let unused = Resources::default();
        assert_eq!(node.lacks(&unused, &request), None);
        request.add_text("attachable-volumes-x", "3");
        assert_eq!(node.lacks(&unused, &request), None);
        request.add_text("nvidia.com/gpu", "1");
        assert_eq!(node.lacks(&unused, &request), Some("nvidia.com/gpu"));
        assert_eq!(node.lacks(&unused, &of("1001m", "0")), Some(CPU));
        // A node above its capacity still takes a request of 0.
        assert_eq!(node.lacks(&of("3", "0"), &of("0", "1Mi")), None);
    }
}

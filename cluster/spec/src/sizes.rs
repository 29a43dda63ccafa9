//! The sizes of machines, under ARM's names.

/// A machine size of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmSize {
    /// ARM name.
    pub name: &'static str,
    /// Cores.
    pub cores: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Temporary disk, GiB.
    pub disk_gib: u32,
}

impl VmSize {
    /// Its family, named as in Azure's core quotas, e.g. `standardDSv2Family`.
    pub fn family(&self) -> &'static str {
        VM_FAMILIES
            .iter()
            .find(|family| family.sizes.contains(&self.name))
            .map_or("standardFamily", |family| family.name)
    }
}

/// A family of sizes with a common core quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmFamily {
    /// E.g. `standardDSv2Family`.
    pub name: &'static str,
    /// The name for people.
    pub title: &'static str,
    /// Its sizes of the catalogue.
    pub sizes: &'static [&'static str],
}

/// The families of [`VM_SIZES`].
pub const VM_FAMILIES: &[VmFamily] = &[
    VmFamily {
        name: "standardBSFamily",
        title: "Standard BS Family vCPUs",
        sizes: &["Standard_B2s", "Standard_B2ms", "Standard_B4ms"],
    },
    VmFamily {
        name: "standardDSv3Family",
        title: "Standard DSv3 Family vCPUs",
        sizes: &["Standard_D2s_v3", "Standard_D4s_v3", "Standard_D8s_v3"],
    },
    VmFamily {
        name: "standardDSv5Family",
        title: "Standard DSv5 Family vCPUs",
        sizes: &["Standard_D2s_v5", "Standard_D4s_v5", "Standard_D8s_v5"],
    },
    VmFamily {
        name: "standardDSv2Family",
        title: "Standard DSv2 Family vCPUs",
        sizes: &["Standard_DS2_v2", "Standard_DS3_v2", "Standard_DS4_v2"],
    },
];

/// The sizes offered: names and figures of Azure's public catalogue.
pub const VM_SIZES: &[VmSize] = &[
    VmSize {
        name: "Standard_B2s",
        cores: 2,
        memory_mib: 4096,
        disk_gib: 8,
    },
    VmSize {
        name: "Standard_B2ms",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 16,
    },
    VmSize {
        name: "Standard_B4ms",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 32,
    },
    VmSize {
        name: "Standard_D2s_v3",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 16,
    },
    VmSize {
        name: "Standard_D4s_v3",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 32,
    },
    VmSize {
        name: "Standard_D8s_v3",
        cores: 8,
        memory_mib: 32768,
        disk_gib: 64,
    },
    VmSize {
        name: "Standard_D2s_v5",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_D4s_v5",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_D8s_v5",
        cores: 8,
        memory_mib: 32768,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_DS2_v2",
        cores: 2,
        memory_mib: 7168,
        disk_gib: 14,
    },
    VmSize {
        name: "Standard_DS3_v2",
        cores: 4,
        memory_mib: 14336,
        disk_gib: 28,
    },
    VmSize {
        name: "Standard_DS4_v2",
        cores: 8,
        memory_mib: 28672,
        disk_gib: 56,
    },
];

/// The default size.
pub const DEFAULT_VM_SIZE: &str = "Standard_DS2_v2";

/// Looks a size up, ignoring case as ARM does.
pub fn vm_size(name: &str) -> Option<&'static VmSize> {
    VM_SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_of_one_family() {
        for size in VM_SIZES {
            let families = VM_FAMILIES
                .iter()
                .filter(|family| family.sizes.contains(&size.name));
            assert_eq!(families.count(), 1, "{}", size.name);
        }
        let listed: usize = VM_FAMILIES.iter().map(|family| family.sizes.len()).sum();
        assert_eq!(listed, VM_SIZES.len());
    }
}

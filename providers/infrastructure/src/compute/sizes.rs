//! The sizes of machines, as lists of sizes and of skus.

use cluster_spec::VM_SIZES;
use serde_json::{Value, json};

/// `locations/{l}/vmSizes`.
pub(super) fn sizes() -> Value {
    let each = VM_SIZES.iter().map(|size| {
        json!({
            "name": size.name,
            "numberOfCores": size.cores,
            "memoryInMB": size.memory_mib,
            "resourceDiskSizeInMB": u64::from(size.disk_gib) * 1024,
            // The largest `osDiskSizeGB`.
            "osDiskSizeInMB": 2048 * 1024,
            "maxDataDiskCount": 0,
        })
    });
    json!({ "value": each.collect::<Vec<_>>() })
}

/// `skus`.
pub(super) fn skus(location: &str) -> Vec<Value> {
    let each = VM_SIZES.iter().map(|size| {
        let gib = size.memory_mib / 1024;
        json!({
            "resourceType": "virtualMachines",
            "name": size.name,
            "tier": "Standard",
            "size": size.name.trim_start_matches("Standard_"),
            "family": size.family(),
            "locations": [location],
            "locationInfo": [{ "location": location, "zones": [], "zoneDetails": [] }],
            "capabilities": [
                { "name": "vCPUs", "value": size.cores.to_string() },
                { "name": "MemoryGB", "value": gib.to_string() },
                { "name": "MaxResourceVolumeMB", "value": (u64::from(size.disk_gib) * 1024).to_string() },
                { "name": "MaxDataDiskCount", "value": "0" },
                { "name": "CpuArchitectureType", "value": "x64" },
            ],
            "restrictions": [],
        })
    });
    each.collect()
}

//! The StorageClass parameters of Azure's disk driver, each with its effect here.
//!
//! Always true: one table; a parameter that is not in it is refused, as in Azure's driver, so that no user
//! relies on an ignored one. Names are case-insensitive.

use serde_json::Value;

use crate::SHARE_PARAMETERS;

/// The SKU.
pub(crate) const SKU: &str = "skuName";
/// An alias of it.
pub(crate) const SKU_ALIAS: &str = "storageAccountType";
/// The host's caching mode.
const CACHING: &str = "cachingMode";
/// The filesystem.
pub(crate) const FS_TYPE: &str = "fsType";
/// Kubernetes' own name of it.
pub(crate) const FS_TYPE_ALIAS: &str = "csi.storage.k8s.io/fstype";
/// The only filesystem.
const EXT4: &str = "ext4";
/// The default SKU.
const USUAL_SKU: &str = "StandardSSD_LRS";
/// The default SKU of shares.
pub(crate) const USUAL_SHARE_SKU: &str = "Standard_LRS";
/// The SKU without caching.
const UNCACHED_SKU: &str = "PremiumV2_LRS";

pub(crate) const ANY: &[&str] = &[];
pub(crate) const SWITCH: &[&str] = &["true", "false"];
const SKUS: &[&str] = &[
    "Standard_LRS",
    USUAL_SKU,
    "StandardSSD_ZRS",
    "Premium_LRS",
    "Premium_ZRS",
    UNCACHED_SKU,
    "UltraSSD_LRS",
];

/// The effect of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It has its documented effect.
    Effective,
    /// It is shown with the disk, without any other effect.
    Shown,
    /// It has no effect; the sentence gives the reason.
    NoEffect,
    /// A class with it provisions nothing, unless it has one of its [`Parameter::values`]: without its
    /// effect, the disk would be a different one.
    Refused,
}

/// A parameter of one of Azure's drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; a `*` in it is a wildcard.
    pub name: &'static str,
    /// Its effect.
    pub class: Class,
    /// Permitted values, case-insensitive; empty: all, or none for one that is [`Class::Refused`].
    pub values: &'static [&'static str],
    /// The reason, or the effect: half a sentence.
    pub about: &'static str,
}

pub(crate) const fn row(
    name: &'static str,
    class: Class,
    values: &'static [&'static str],
    about: &'static str,
) -> Parameter {
    Parameter {
        name,
        class,
        values,
        about,
    }
}

/// Rows that both drivers have.
pub(crate) const LOCATION: Parameter = row("location", Class::NoEffect, ANY, "a stamp is one place");
pub(crate) const USER_AGENT: Parameter = row("useragent", Class::NoEffect, ANY, NO_CALLS);
pub(crate) const SECRET_NAMES: Parameter = row(
    "csi.storage.k8s.io/*-secret-name",
    Class::NoEffect,
    ANY,
    NO_SECRETS,
);
pub(crate) const SECRET_NAMESPACES: Parameter = row(
    "csi.storage.k8s.io/*-secret-namespace",
    Class::NoEffect,
    ANY,
    NO_SECRETS,
);

/// All parameters of the disk driver.
pub const PARAMETERS: &[Parameter] = &[
    row(FS_TYPE, Class::Effective, &[EXT4], ONE_FILESYSTEM),
    row(FS_TYPE_ALIAS, Class::Effective, &[EXT4], ONE_FILESYSTEM),
    row(
        SKU,
        Class::Shown,
        SKUS,
        "all disks are files of the host, and as fast as its disk",
    ),
    row(
        SKU_ALIAS,
        Class::Shown,
        SKUS,
        "another name for skuName, which goes first",
    ),
    row(
        "kind",
        Class::NoEffect,
        &["Managed", "Dedicated", "Shared"],
        "all disks are managed ones",
    ),
    row(
        CACHING,
        Class::NoEffect,
        &["None", "ReadOnly", "ReadWrite"],
        "the host caches as it does for its own files",
    ),
    LOCATION,
    row("zoned", Class::NoEffect, ANY, "disks are in no zone"),
    row("tags", Class::NoEffect, ANY, NO_TAGS),
    row("tagValueDelimiter", Class::NoEffect, ANY, NO_TAGS),
    row("DiskIOPSReadWrite", Class::NoEffect, ANY, NO_TARGETS),
    row("DiskMBpsReadWrite", Class::NoEffect, ANY, NO_TARGETS),
    row("enableBursting", Class::NoEffect, SWITCH, NO_TARGETS),
    row("enablePerformancePlus", Class::NoEffect, SWITCH, NO_TARGETS),
    row(
        "perfProfile",
        Class::NoEffect,
        &["none", "basic", "advanced"],
        NO_SETTINGS,
    ),
    row("device-setting/*", Class::NoEffect, ANY, NO_SETTINGS),
    row(
        "LogicalSectorSize",
        Class::NoEffect,
        &["512", "4096"],
        "sectors are as the host's loop devices have them",
    ),
    row(
        "writeAcceleratorEnabled",
        Class::NoEffect,
        SWITCH,
        "there is no write accelerator",
    ),
    row(
        "networkAccessPolicy",
        Class::NoEffect,
        &["AllowAll", "DenyAll", "AllowPrivate"],
        NO_EXPORT,
    ),
    row(
        "publicNetworkAccess",
        Class::NoEffect,
        &["Enabled", "Disabled"],
        NO_EXPORT,
    ),
    row("diskAccessID", Class::NoEffect, ANY, NO_EXPORT),
    row("enableAsyncAttach", Class::NoEffect, ANY, NO_CALLS),
    row("attachDiskInitialDelay", Class::NoEffect, ANY, NO_CALLS),
    USER_AGENT,
    SECRET_NAMES,
    SECRET_NAMESPACES,
    row(
        "maxShares",
        Class::Refused,
        &["1"],
        "one node at a time has a disk",
    ),
    row(
        "maxMountReplicaCount",
        Class::Refused,
        &["0"],
        "one node at a time has a disk",
    ),
    row(
        "resourceGroup",
        Class::Refused,
        ANY,
        "disks are in the node resource group, and go with the cluster",
    ),
    row(
        "subscriptionID",
        Class::Refused,
        ANY,
        "disks are in the cluster's subscription",
    ),
    row(
        "diskName",
        Class::Refused,
        ANY,
        "a disk has the name of its PersistentVolume",
    ),
    row(
        "diskEncryptionSetID",
        Class::Refused,
        ANY,
        "there are no disk encryption sets; encrypt the host's disk",
    ),
    row(
        "diskEncryptionType",
        Class::Refused,
        ANY,
        "there are no disk encryption sets; encrypt the host's disk",
    ),
    row(
        "storageAccount",
        Class::Refused,
        ANY,
        "there are no storage accounts for disks",
    ),
];

const ONE_FILESYSTEM: &str = "disks are formatted with ext4";
const NO_TAGS: &str = "disks are shown without tags";
const NO_TARGETS: &str = "disks have no targets of performance";
const NO_SETTINGS: &str = "settings of devices are the host's";
const NO_EXPORT: &str = "disks cannot be downloaded";
pub(crate) const NO_CALLS: &str = "no calls of Azure's are made";
pub(crate) const NO_SECRETS: &str = "the driver needs no secrets";

impl Parameter {
    fn is_named(&self, name: &str) -> bool {
        match self.name.split_once('*') {
            Some((before, after)) => {
                let name = name.to_ascii_lowercase();
                name.len() > before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
            None => self.name.eq_ignore_ascii_case(name),
        }
    }

    /// The value as written in the table.
    fn known(&self, value: &str) -> Option<&'static str> {
        let mut values = self.values.iter().copied();
        values.find(|known| known.eq_ignore_ascii_case(value))
    }
}

/// The parsed parameters of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) sku: &'static str,
    pub(crate) fs_type: &'static str,
}

/// Parses those of a class of disks, or of shares; unsupported ones are refused.
pub(crate) fn read(parameters: &Value, shared: bool) -> Result<Asked, String> {
    let (table, usual) = if shared {
        (SHARE_PARAMETERS, USUAL_SHARE_SKU)
    } else {
        (PARAMETERS, USUAL_SKU)
    };
    let (mut sku, mut alias, mut caching) = (None, None, None);
    for (name, value) in parameters.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let Some(parameter) = table.iter().find(|known| known.is_named(name)) else {
            return Err(format!(
                "parameters.{name} of the StorageClass is not known; make a StorageClass without it"
            ));
        };
        let known = parameter.known(value);
        match parameter.class {
            // An empty value means the default.
            _ if value.is_empty() || known.is_some() => {}
            Class::Refused => {
                return Err(format!(
                    "parameters.{name} of the StorageClass cannot be followed: {}; make a StorageClass without it",
                    parameter.about
                ));
            }
            _ if parameter.values.is_empty() => {}
            Class::Effective | Class::Shown | Class::NoEffect => {
                return Err(format!(
                    "parameters.{name} of the StorageClass is {value:?}, which is none of {}; make a StorageClass with one of them",
                    parameter.values.join(", ")
                ));
            }
        }
        match parameter.name {
            SKU => sku = known,
            SKU_ALIAS => alias = known,
            CACHING => caching = known,
            _ => {}
        }
    }
    let sku = sku.or(alias).unwrap_or(usual);
    if sku == UNCACHED_SKU && caching.is_some_and(|caching| caching != "None") {
        return Err(format!(
            "parameters.{CACHING} of the StorageClass: disks of {UNCACHED_SKU} have None only; make a StorageClass with that"
        ));
    }
    Ok(Asked { sku, fs_type: EXT4 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_has_one_row_and_a_reason() {
        for table in [PARAMETERS, SHARE_PARAMETERS] {
            let names: BTreeSet<String> = table
                .iter()
                .map(|known| known.name.to_ascii_lowercase())
                .collect();
            assert_eq!(names.len(), table.len());
            assert!(table.iter().all(|known| !known.about.is_empty()));
        }
    }

    #[test]
    fn nothing_said_is_as_usual() {
        for nothing in [
            Value::Null,
            json!({}),
            json!({ "skuName": "", "resourceGroup": "" }),
        ] {
            let usual = Asked {
                sku: "StandardSSD_LRS",
                fs_type: "ext4",
            };
            assert_eq!(read(&nothing, false), Ok(usual), "{nothing}");
        }
    }

    #[test]
    fn names_are_told_apart_without_regard_to_case() {
        let sku = |parameters: Value| read(&parameters, false).map(|asked| asked.sku);
        assert_eq!(sku(json!({ "SKUNAME": "Premium_ZRS" })), Ok("Premium_ZRS"));
        assert_eq!(
            sku(json!({ "storageaccounttype": "Premium_LRS", "kind": "managed" })),
            Ok("Premium_LRS")
        );
        let both = json!({ "storageAccountType": "Premium_LRS", "skuName": "Standard_LRS" });
        assert_eq!(sku(both), Ok("Standard_LRS"));
        let secrets = json!({ "csi.storage.k8s.io/node-stage-secret-name": "key", "Device-Setting/queue/nr_requests": "8" });
        assert_eq!(sku(secrets), Ok(USUAL_SKU));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_its_name() {
        for (name, value, said) in [
            ("skuName", "Cheap_LRS", "Premium_LRS"),
            ("fsType", "xfs", "ext4"),
            ("csi.storage.k8s.io/fstype", "btrfs", "ext4"),
            ("cachingMode", "WriteOnly", "ReadOnly"),
            ("resourceGroup", "mine", "node resource group"),
            ("DISKENCRYPTIONSETID", "/subscriptions/s", "encrypt"),
            ("maxShares", "2", "one node"),
            ("colour", "blue", "not known"),
            ("csi.storage.k8s.io/colour", "blue", "not known"),
            ("device-setting/", "8", "not known"),
        ] {
            let why = read(&json!({ name: value }), false).unwrap_err();
            assert!(why.contains(&format!("parameters.{name} ")), "{why}");
            assert!(why.contains(said), "{why}");
        }
        let one = json!({ "maxShares": "1", "maxMountReplicaCount": "0" });
        assert!(read(&one, false).is_ok());
    }

    #[test]
    fn premium_v2_has_no_caching() {
        let with = |caching: &str| {
            read(
                &json!({ "skuName": "PremiumV2_LRS", "cachingMode": caching }),
                false,
            )
        };
        assert!(with("ReadOnly").unwrap_err().contains("cachingMode"));
        assert!(with("none").is_ok() && with("").is_ok());
    }

    #[test]
    fn shares_have_parameters_of_their_own() {
        let of = |parameters: Value| read(&parameters, true);
        assert_eq!(of(Value::Null).map(|asked| asked.sku), Ok(USUAL_SHARE_SKU));
        let premium = json!({ "skuName": "premium_lrs", "protocol": "NFS", "shareAccessTier": "Hot" });
        assert_eq!(of(premium).map(|asked| asked.sku), Ok("Premium_LRS"));
        for (name, value, said) in [
            ("storageAccount", "mine", "no storage accounts"),
            ("shareName", "mine", "its PersistentVolume"),
            ("protocol", "ftp", "smb"),
            ("cachingMode", "None", "not known"),
            ("skuName", "UltraSSD_LRS", "Premium_LRS"),
        ] {
            let why = of(json!({ name: value })).unwrap_err();
            assert!(why.contains(&format!("parameters.{name} ")), "{why}");
            assert!(why.contains(said), "{why}");
        }
    }
}

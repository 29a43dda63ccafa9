//! The StorageClass parameters of Azure's driver of shares, each with its effect here: as for disks.

use crate::parameters::{
    ANY, Class, FS_TYPE, FS_TYPE_ALIAS, LOCATION, NO_CALLS, NO_SECRETS, Parameter, SECRET_NAMES,
    SECRET_NAMESPACES, SKU, SKU_ALIAS, SWITCH, USER_AGENT, USUAL_SHARE_SKU, row,
};

const SKUS: &[&str] = &[
    USUAL_SHARE_SKU,
    "Standard_GRS",
    "Standard_RAGRS",
    "Standard_ZRS",
    "Standard_GZRS",
    "Standard_RAGZRS",
    "Premium_LRS",
    "Premium_ZRS",
    "StandardV2_LRS",
    "StandardV2_ZRS",
    "StandardV2_GRS",
    "StandardV2_GZRS",
    "PremiumV2_LRS",
    "PremiumV2_ZRS",
];

/// All parameters of the driver of shares.
pub const SHARE_PARAMETERS: &[Parameter] = &[
    row(
        SKU,
        Class::Shown,
        SKUS,
        "all shares are files of the host, and as fast as its disk",
    ),
    row(
        SKU_ALIAS,
        Class::Shown,
        SKUS,
        "another name for skuName, which goes first",
    ),
    row("protocol", Class::NoEffect, &["smb", "nfs"], NO_PROTOCOL),
    row(
        FS_TYPE,
        Class::NoEffect,
        &["smb", "cifs", "nfs", "ext4"],
        NO_PROTOCOL,
    ),
    row(
        FS_TYPE_ALIAS,
        Class::NoEffect,
        &["smb", "cifs", "nfs", "ext4"],
        NO_PROTOCOL,
    ),
    row("enableMultichannel", Class::NoEffect, SWITCH, NO_PROTOCOL),
    row(
        "enableLargeFileShares",
        Class::NoEffect,
        SWITCH,
        "a share is as large as it is asked for",
    ),
    row("shareAccessTier", Class::NoEffect, ANY, NO_TIERS),
    row("accessTier", Class::NoEffect, ANY, NO_TIERS),
    row("accountAccessTier", Class::NoEffect, ANY, NO_TIERS),
    row(
        "rootSquashType",
        Class::Refused,
        &["NoRootSquash"],
        "root in a pod is root in the share",
    ),
    row(
        "mountPermissions",
        Class::NoEffect,
        &["0", "0777", "777"],
        "every user may write to the root of a share",
    ),
    LOCATION,
    row("tags", Class::NoEffect, ANY, "shares are shown without tags"),
    row(
        "tagValueDelimiter",
        Class::NoEffect,
        ANY,
        "shares are shown without tags",
    ),
    row("matchTags", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row(
        "selectRandomMatchingAccount",
        Class::NoEffect,
        SWITCH,
        NO_ACCOUNTS,
    ),
    row("createAccount", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row("accountQuota", Class::NoEffect, ANY, NO_ACCOUNTS),
    row("storageEndpointSuffix", Class::NoEffect, ANY, NO_ACCOUNTS),
    row("storeAccountKey", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row("getLatestAccountKey", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row("allowBlobPublicAccess", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row("allowSharedKeyAccess", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row(
        "allowCrossTenantReplication",
        Class::NoEffect,
        SWITCH,
        NO_ACCOUNTS,
    ),
    row("requireInfraEncryption", Class::NoEffect, SWITCH, NO_ACCOUNTS),
    row(
        "disableDeleteRetentionPolicy",
        Class::NoEffect,
        SWITCH,
        NO_ACCOUNTS,
    ),
    row("networkEndpointType", Class::NoEffect, ANY, NO_NETWORK),
    row("publicNetworkAccess", Class::NoEffect, ANY, NO_NETWORK),
    row("vnetResourceGroup", Class::NoEffect, ANY, NO_NETWORK),
    row("vnetName", Class::NoEffect, ANY, NO_NETWORK),
    row("subnetName", Class::NoEffect, ANY, NO_NETWORK),
    row("privateDNSZoneName", Class::NoEffect, ANY, NO_NETWORK),
    row("useDataPlaneAPI", Class::NoEffect, ANY, NO_CALLS),
    USER_AGENT,
    row("secretName", Class::NoEffect, ANY, NO_SECRETS),
    row("secretNamespace", Class::NoEffect, ANY, NO_SECRETS),
    SECRET_NAMES,
    SECRET_NAMESPACES,
    row(
        "storageAccount",
        Class::Refused,
        ANY,
        "there are no storage accounts",
    ),
    row("server", Class::Refused, ANY, "there are no storage accounts"),
    row(
        "resourceGroup",
        Class::Refused,
        ANY,
        "shares are of the cluster, and go with it",
    ),
    row(
        "subscriptionID",
        Class::Refused,
        ANY,
        "shares are in the cluster's subscription",
    ),
    row(
        "shareName",
        Class::Refused,
        ANY,
        "a share has the name of its PersistentVolume",
    ),
    row(
        "shareNamePrefix",
        Class::Refused,
        ANY,
        "a share has the name of its PersistentVolume",
    ),
    row("folderName", Class::Refused, ANY, "a share is mounted as a whole"),
];

const NO_PROTOCOL: &str =
    "no protocol is between a node and a share: the nodes of a host mount its filesystem directly";
const NO_TIERS: &str = "all shares are on the host's disk";
const NO_ACCOUNTS: &str = "there are no storage accounts";
const NO_NETWORK: &str = "shares are reached by the cluster's own nodes only, and by no network";

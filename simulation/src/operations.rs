//! The operations that are tried with every fault at every step. A new one gets all of that by a line here.

/// An operation, in the commands of [`crate::script`].
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// For people.
    pub name: &'static str,
    /// The commands before; they settle first.
    pub before: &'static [&'static str],
    /// The tested commands.
    pub act: &'static [&'static str],
}

const fn operation(
    name: &'static str,
    before: &'static [&'static str],
    act: &'static [&'static str],
) -> Operation {
    Operation { name, before, act }
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    operation("create", &[], &["create c1 np1=2"]),
    operation("create-overlay", &[], &["create c1 np1=1 np2=0 plugin=overlay"]),
    operation("scale-up", &["create c1 np1=1"], &["pool c1 np1 3"]),
    operation("scale-down", &["create c1 np1=3"], &["pool c1 np1 1"]),
    operation("pool-add", &["create c1 np1=1"], &["pool c1 np2 2"]),
    operation("pool-delete", &["create c1 np1=1 np2=2"], &["drop c1 np2"]),
    operation(
        "pool-replace",
        &["create c1 np1=1 np2=1"],
        &["drop c1 np2", "pool c1 np2 2"],
    ),
    operation("label", &["create c1 np1=2"], &["label c1 np1 team=blue"]),
    operation("taint", &["create c1 np1=2"], &["taint c1 np1 a=b:NoSchedule"]),
    operation("delete", &["create c1 np1=2"], &["delete c1"]),
    operation(
        "delete-while-creating",
        &[],
        &["create c1 np1=2", "wait 1", "delete c1"],
    ),
    operation(
        "delete-and-create-again",
        &["create c1 np1=1"],
        &["delete c1", "wait 2", "create c1 np1=1"],
    ),
    operation(
        "group-delete",
        &["create c1 np1=1", "create c2 np1=1"],
        &["delete-group"],
    ),
    operation(
        "scale-twice",
        &["create c1 np1=1"],
        &["pool c1 np1 3", "wait 1", "pool c1 np1 2"],
    ),
    operation(
        "abort",
        &["create c1 np1=1"],
        &["pool c1 np1 3", "wait 1", "abort c1"],
    ),
    operation("abort-creation", &[], &["create c1 np1=1", "wait 1", "abort c1"]),
    // The network is just being removed when machines are requested again.
    operation(
        "abort-creation-and-go-on",
        &[],
        &["create c1 np1=1", "abort c1", "wait 0.1", "pool c1 np1 3"],
    ),
    operation("restore", &["create c1 np1=2", "wait 30"], &["restore c1 10"]),
    operation(
        "restore-members",
        &["create c1 np1=1 tier=Standard", "wait 30"],
        &["restore c1 10"],
    ),
    operation(
        "restore-before-a-change",
        &["create c1 np1=3", "wait 30", "pool c1 np1 1", "settle"],
        &["restore c1 20"],
    ),
    operation(
        "restore-as-new",
        &["create c1 np1=1", "wait 30"],
        &["restore c1 10 c2"],
    ),
    operation("credential", &["create c1 np1=1"], &["credential c1 Admin"]),
    operation(
        "credential-revoke",
        &["create c1 np1=1", "credential c1 Admin", "credential c1 User"],
        &["revoke c1"],
    ),
    operation("namespace", &["create c1 np1=1"], &["namespace c1 dev cpu=2"]),
    operation(
        "namespace-delete",
        &["create c1 np1=1", "namespace c1 dev delete=Delete"],
        &["drop-namespace c1 dev"],
    ),
    operation(
        "volume",
        &["create c1 np1=2"],
        &["claim c1 data 4", "use c1 data vmss000000"],
    ),
    operation(
        "volume-move",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000000"],
        &["use c1 data vmss000001"],
    ),
    operation(
        "volume-grow",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000000"],
        &["grow c1 data 9"],
    ),
    operation(
        "volume-delete",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000000"],
        &["leave c1 data", "drop-claim c1 data"],
    ),
    operation(
        "volume-of-a-lost-node",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000001"],
        &["vanish vmss000001", "use c1 data vmss000000"],
    ),
    operation(
        "share",
        &["create c1 np1=2"],
        &[
            "claim c1 files 4 class=azurefile-csi modes=ReadWriteMany",
            "use c1 files",
        ],
    ),
    operation(
        "share-grow",
        &[
            "create c1 np1=2",
            "claim c1 files 4 class=azurefile-csi modes=ReadWriteMany",
            "use c1 files",
        ],
        &["grow c1 files 9"],
    ),
    operation(
        "share-delete",
        &[
            "create c1 np1=2",
            "claim c1 files 4 class=azurefile-csi modes=ReadWriteMany",
            "use c1 files",
        ],
        &["leave c1 files", "drop-claim c1 files"],
    ),
    operation(
        "snapshot",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000000"],
        &["snapshot c1 before data"],
    ),
    operation(
        "snapshot-restore",
        &[
            "create c1 np1=2",
            "claim c1 data 4",
            "use c1 data vmss000000",
            "snapshot c1 before data",
        ],
        &["claim c1 again 5 snapshot=before", "use c1 again vmss000001"],
    ),
    operation(
        "snapshot-delete",
        &[
            "create c1 np1=2",
            "claim c1 data 4",
            "use c1 data vmss000000",
            "snapshot c1 before data",
        ],
        &["drop-snapshot c1 before"],
    ),
    operation(
        "delete-with-volumes",
        &["create c1 np1=2", "claim c1 data 4", "use c1 data vmss000000"],
        &["delete c1"],
    ),
    operation("upgrade", &["create c1 np1=2"], &["upgrade c1 1.37.1"]),
    operation(
        "upgrade-members",
        &["create c1 np1=1 tier=Standard"],
        &["upgrade c1 1.37.1 control-plane"],
    ),
    operation(
        "upgrade-pool",
        &["create c1 np1=1 np2=2", "upgrade c1 1.37.1 control-plane"],
        &["upgrade c1 1.37.1 np2"],
    ),
    operation(
        "upgrade-and-abort",
        &["create c1 np1=2"],
        &["upgrade c1 1.37.1", "wait 3", "abort c1"],
    ),
    operation("upgrade-soak", &["create c1 np1=1"], &["soak c1 1.37.1"]),
    operation(
        "upgrade-soak-of-members",
        &["create c1 np1=1 tier=Standard"],
        &["soak c1 1.37.1"],
    ),
    operation(
        "upgrade-roll-back",
        &["create c1 np1=1", "soak c1 1.37.1"],
        &["roll-back c1 1.36.3"],
    ),
    operation(
        "upgrade-roll-back-of-members",
        &["create c1 np1=1 tier=Standard", "soak c1 1.37.1"],
        &["roll-back c1 1.36.3"],
    ),
    operation(
        "upgrade-soak-and-roll-back",
        &["create c1 np1=1"],
        &["soak c1 1.37.1", "wait 3", "roll-back c1 1.36.3"],
    ),
    operation(
        "upgrade-roll-back-and-abort",
        &["create c1 np1=1", "soak c1 1.37.1"],
        &["roll-back c1 1.36.3", "wait 2", "abort c1"],
    ),
    operation(
        "upgrade-finalize",
        &["create c1 np1=1 tier=Standard", "soak c1 1.37.1"],
        &["finalize c1"],
    ),
    operation(
        "upgrade-pool-and-roll-back",
        &["create c1 np1=1 np2=2", "upgrade c1 1.37.1"],
        &["roll-back c1 np2 1.36.3"],
    ),
    operation(
        "upgrade-node-image",
        &[
            "image 1.36.3 2026.01.01",
            "create c1 np1=2",
            "image 1.36.3 2026.01.08",
        ],
        &["renew c1 np1"],
    ),
    operation("stop", &["create c1 np1=2"], &["power c1 off"]),
    operation(
        "stop-members",
        &["create c1 np1=1 tier=Standard"],
        &["power c1 off"],
    ),
    operation("start", &["create c1 np1=2", "power c1 off"], &["power c1 on"]),
    operation(
        "start-members",
        &["create c1 np1=1 tier=Standard", "power c1 off"],
        &["power c1 on"],
    ),
    operation(
        "stop-and-start",
        &["create c1 np1=2"],
        &["power c1 off", "wait 1", "power c1 on"],
    ),
    operation(
        "start-and-stop",
        &["create c1 np1=2", "power c1 off"],
        &["power c1 on", "wait 1", "power c1 off"],
    ),
    operation(
        "stop-and-abort",
        &["create c1 np1=2"],
        &["power c1 off", "wait 1", "abort c1"],
    ),
    // No look at the fabric comes between: it starts as a stopped one.
    operation(
        "start-vanished",
        &["create c1 np1=2", "power c1 off"],
        &["vanish control-plane-0", "power c1 on"],
    ),
    operation(
        "delete-stopped",
        &["create c1 np1=2", "power c1 off"],
        &["delete c1"],
    ),
    operation(
        "rotate-certificates",
        &["create c1 np1=2"],
        &["rotate c1 certificates"],
    ),
    operation(
        "rotate-certificates-of-members",
        &["create c1 np1=1 tier=Standard"],
        &["rotate c1 certificates"],
    ),
    operation("rotate-keys", &["create c1 np1=2"], &["rotate c1 keys"]),
    operation(
        "rotate-and-abort",
        &["create c1 np1=2"],
        &["rotate c1 certificates", "wait 1", "abort c1"],
    ),
    operation(
        "rotate-and-stop",
        &["create c1 np1=2"],
        &[
            "rotate c1 certificates",
            "wait 1",
            "power c1 off",
            "wait 5",
            "power c1 on",
        ],
    ),
    operation("tier-up", &["create c1 np1=1"], &["tier c1 Standard"]),
    operation("tier-down", &["create c1 np1=1 tier=Standard"], &["tier c1 Free"]),
    operation("repair-stopped-node", &["create c1 np1=2"], &["crash vmss000001"]),
    operation(
        "repair-vanished-node",
        &["create c1 np1=2"],
        &["vanish vmss000001"],
    ),
    operation(
        "repair-control-plane",
        &["create c1 np1=1"],
        &["crash control-plane"],
    ),
    operation(
        "repair-hanging-node",
        &["create c1 np1=3"],
        &["ail vmss000001 hangs reboot"],
    ),
    operation(
        "replace-node",
        &["create c1 np1=3"],
        &["ail vmss000001 not-ready replace"],
    ),
    operation(
        "repair-lost-member",
        &["create c1 np1=1 tier=Standard"],
        &["vanish control-plane-1"],
    ),
    operation(
        "replace-member",
        &["create c1 np1=1 tier=Standard"],
        &["ail control-plane-0 hangs replace"],
    ),
    operation(
        "store-put-back",
        &[
            "create c1 np1=2",
            "copy-store",
            "pool c1 np1 3",
            "create c2 np1=1",
        ],
        &[
            "stop",
            "put-back-store",
            "start",
            "pool c1 np1 3",
            "create c3 np1=1",
        ],
    ),
    operation(
        "store-lost",
        &["create c1 np1=1 tier=Standard"],
        &["stop", "lose-store", "start", "create c2 np1=1"],
    ),
    operation(
        "share-snapshot",
        &[
            "create c1 np1=2",
            "claim c1 files 4 class=azurefile-csi modes=ReadWriteMany",
            "use c1 files",
        ],
        &[
            "snapshot c1 before files",
            "claim c1 again 5 class=azurefile-csi modes=ReadWriteMany snapshot=before",
        ],
    ),
];

use super::*;
use proptest::prelude::*;

fn parse(path: &str) -> ResourcePath {
    ResourcePath::parse(path).unwrap()
}

/// path, subscription, group, namespace, types, names, parent
type Row = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    &'static [&'static str],
    &'static [&'static str],
    Option<&'static str>,
);

const TABLE: &[Row] = &[
    ("/", None, None, None, &[], &[], None),
    ("", None, None, None, &[], &[], None),
    ("/subscriptions", None, None, None, &["subscriptions"], &[], None),
    ("/subscriptions/s", Some("s"), None, None, &[], &[], None),
    ("/tenants", None, None, None, &["tenants"], &[], None),
    (
        "/subscriptions/s/locations",
        Some("s"),
        None,
        None,
        &["locations"],
        &[],
        None,
    ),
    (
        "/subscriptions/s/resourcegroups",
        Some("s"),
        None,
        None,
        &["resourcegroups"],
        &[],
        None,
    ),
    (
        "/SUBSCRIPTIONS/s/resourcegroups/G",
        Some("s"),
        Some("G"),
        None,
        &[],
        &[],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/G/",
        Some("s"),
        Some("G"),
        None,
        &[],
        &[],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/resources",
        Some("s"),
        Some("g"),
        None,
        &["resources"],
        &[],
        None,
    ),
    (
        "/subscriptions/s/providers",
        Some("s"),
        None,
        None,
        &["providers"],
        &[],
        None,
    ),
    (
        "/subscriptions/s/providers/N",
        Some("s"),
        None,
        Some("N"),
        &[],
        &[],
        None,
    ),
    (
        "/subscriptions/s/providers/N/register",
        Some("s"),
        None,
        Some("N"),
        &["register"],
        &[],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/providers/N//managedClusters/c",
        Some("s"),
        Some("g"),
        Some("N"),
        &["managedClusters"],
        &["c"],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/providers/N/managedClusters/c/agentPools/p/upgradeProfiles/default",
        Some("s"),
        Some("g"),
        Some("N"),
        &["managedClusters", "agentPools", "upgradeProfiles"],
        &["c", "p", "default"],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/providers/N/managedClusters/c/listClusterAdminCredential",
        Some("s"),
        Some("g"),
        Some("N"),
        &["managedClusters", "listClusterAdminCredential"],
        &["c"],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/providers/N/managedClusters/providers/agentPools/providers",
        Some("s"),
        Some("g"),
        Some("N"),
        &["managedClusters", "agentPools"],
        &["providers", "providers"],
        None,
    ),
    (
        "/subscriptions/s/resourceGroups/g/providers/N/t/r/providers/M/roleAssignments/a",
        Some("s"),
        Some("g"),
        Some("M"),
        &["roleAssignments"],
        &["a"],
        Some("/subscriptions/s/resourceGroups/g/providers/N/t/r"),
    ),
    (
        "/providers/A/managementGroups/m/providers/B/x",
        None,
        None,
        Some("B"),
        &["x"],
        &[],
        Some("/providers/A/managementGroups/m"),
    ),
    (
        "/subscriptions/s/resourceGroups/%C3%A4%20b/providers/N/t/a%2Fb",
        Some("s"),
        Some("ä b"),
        Some("N"),
        &["t"],
        &["a/b"],
        None,
    ),
    (
        "/subscriptions/s/resourcegroups/g/deployments/d/operations",
        Some("s"),
        Some("g"),
        None,
        &["deployments", "operations"],
        &["d"],
        None,
    ),
];

#[test]
fn paths_are_sorted_into_their_parts() {
    for &(text, subscription, group, namespace, types, names, parent) in TABLE {
        let path = parse(text);
        assert_eq!(path.subscription.as_deref(), subscription, "{text}");
        assert_eq!(path.resource_group.as_deref(), group, "{text}");
        assert_eq!(path.namespace.as_deref(), namespace, "{text}");
        assert_eq!(path.types, types, "{text}");
        assert_eq!(path.names, names, "{text}");
        assert_eq!(
            path.parent.as_deref().map(ToString::to_string).as_deref(),
            parent,
            "{text}"
        );
        assert_eq!(parse(&path.to_string()), path, "{text}");
    }
}

#[test]
fn what_cannot_be_a_path_is_refused_with_its_place() {
    let long = format!("/a/{}", "x".repeat(MAX_SEGMENT_CHARS + 1));
    let deep = "/a".repeat(MAX_SEGMENTS + 1);
    let huge = "a".repeat(MAX_PATH_BYTES + 1);
    for (text, error) in [
        ("/a/%zz", PathError::Encoding(2)),
        ("/a/%", PathError::Encoding(2)),
        ("/a/%2", PathError::Encoding(2)),
        ("/a/%ff", PathError::Encoding(2)),
        ("/%00", PathError::Characters(1)),
        ("/a/b/../c", PathError::Characters(3)),
        ("/a/%2e%2e", PathError::Characters(2)),
        (&long, PathError::SegmentTooLong(2)),
        (&deep, PathError::TooDeep),
        (&huge, PathError::TooLong(MAX_PATH_BYTES + 1)),
    ] {
        assert_eq!(ResourcePath::parse(text), Err(error), "{text}");
    }
}

#[test]
fn comparison_ignores_the_case_of_ascii_letters_and_nothing_else() {
    let a = parse("/subscriptions/S/resourceGroups/GRüN/providers/Microsoft.X/Tops/N");
    assert!(!a.same(&parse(
        "/subscriptions/S/resourceGroups/GRÜN/providers/Microsoft.X/Tops/N"
    )));
    assert!(crate::same_location("We St", "west") && !crate::same_location("Ä", "ä"));
    assert!(a.same(&parse(
        "/Subscriptions/s/resourcegroups/grün//providers/microsoft.x/tops/n"
    )));
    assert!(!a.same(&parse(
        "/subscriptions/s/resourceGroups/grün/providers/microsoft.x/tops/m"
    )));
    assert!(!a.same(&parse(
        "/subscriptions/s/resourceGroups/grün/providers/microsoft.x/tops"
    )));
    assert!(a.type_is("tops") && !a.type_is("tops/subs") && !a.type_is(""));
    assert!(a.namespace_is("MICROSOFT.x"));
    assert_eq!(a.full_type(), "Microsoft.X/Tops");
}

#[test]
fn ids_are_printed_as_arm_prints_them() {
    assert_eq!(
        resource_id("s", "g", "Microsoft.X", &[("tops", "a"), ("subs", "b")]),
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.X/tops/a/subs/b"
    );
    assert_eq!(
        group_id("s", "g"),
        parse("/subscriptions/s/resourcegroups/g").to_string()
    );
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC*") {
        let _ = ResourcePath::parse(&text);
    }

    #[test]
    fn any_bytes_behind_percent_signs_parse_or_are_refused(text in "[/%0-9a-fA-Fsubpro.\\u{0}-\\u{ff}]{0,80}") {
        let _ = ResourcePath::parse(&text);
    }

    #[test]
    fn what_parses_prints_to_what_parses_to_the_same(
        segments in proptest::collection::vec(
            prop_oneof![
                Just("providers".to_owned()), Just("subscriptions".to_owned()), Just("resourceGroups".to_owned()),
                "[a-zA-Z0-9._()-]{1,12}", "%2F%25|%C3%A4|a%20b",
            ],
            0..14,
        ),
    ) {
        if let Ok(path) = ResourcePath::parse(&format!("/{}", segments.join("/"))) {
            let printed = path.to_string();
            let again = ResourcePath::parse(&printed).unwrap();
            prop_assert_eq!(&again, &path, "{}", printed);
            prop_assert!(again.same(&path));
            prop_assert!(path.names.len() == path.types.len() || path.names.len() + 1 == path.types.len());
        }
    }
}

#[test]
fn right_behind_a_namespace_providers_is_a_type() {
    let text = "/subscriptions/s/providers/Microsoft.Features/providers/Microsoft.Test/features/f";
    let path = ResourcePath::parse(text).unwrap();
    assert_eq!(path.namespace.as_deref(), Some("Microsoft.Features"));
    assert_eq!(
        (path.type_path().as_str(), path.name(1)),
        ("providers/features", Some("f"))
    );
    assert!(path.parent.is_none());
    assert_eq!(path.to_string(), text);
    // Behind a resource it begins an extension, as ever.
    let text = "/subscriptions/s/providers/Microsoft.Test/things/t/providers/Microsoft.Authorization/locks/l";
    assert!(ResourcePath::parse(text).unwrap().parent.is_some());
}

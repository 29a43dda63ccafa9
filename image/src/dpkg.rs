//! The list of installed packages, from dpkg's status file.

use crate::manifest::DebianPackage;

/// Packages that are installed, by name.
pub(crate) fn installed(status: &str) -> Vec<DebianPackage> {
    let mut packages: Vec<_> = status.split("\n\n").filter_map(package).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

fn package(paragraph: &str) -> Option<DebianPackage> {
    // Continuation lines begin with a space, so they never look like one of these.
    let field = |name: &str| {
        paragraph
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    if !field("Status")?.ends_with(" installed") {
        return None;
    }
    Some(DebianPackage {
        name: field("Package")?,
        version: field("Version")?,
        architecture: field("Architecture")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed_and_removed_ones_are_not() {
        let status = "Package: runc\nStatus: install ok installed\nArchitecture: amd64\n\
                      Version: 1.1.5+ds1-1+deb12u1\nDescription: x\n Version: not this one\n\n\
                      Package: old\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
                      Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2+b7\nArchitecture: amd64\n";
        let packages = installed(status);
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[0].name, "bash");
        assert_eq!(packages[1].version, "1.1.5+ds1-1+deb12u1");
        assert!(installed("").is_empty());
    }
}

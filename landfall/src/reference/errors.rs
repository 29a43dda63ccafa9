//! A page for each error code of the ARM API, and their list.

use std::collections::BTreeMap;

use arm_wire::{ERROR_CODES, ErrorCode};

pub(super) fn pages() -> BTreeMap<String, String> {
    let pages = ERROR_CODES
        .iter()
        .map(|code| (format!("errors/{}.md", code.code), page(code)));
    pages.chain([("errors/README.md".to_owned(), index())]).collect()
}

fn page(code: &ErrorCode) -> String {
    format!(
        "# {}\n\nHTTP status {}.\n\n**When.** {}\n\n**What to do.** {}\n",
        code.code, code.status, code.when, code.remedy
    )
}

fn index() -> String {
    let mut codes: Vec<&ErrorCode> = ERROR_CODES.iter().collect();
    codes.sort_by_key(|code| code.code);
    let mut page = "# Error codes\n\nEvery error of the ARM API is `{\"error\":{\"code\",\"message\",\"target\"?,\"details\"?}}` with one of these codes.\n\n\
         | code | status | when |\n|---|---|---|\n"
        .to_owned();
    for code in codes {
        page.push_str(&format!(
            "| [{0}]({0}.md) | {1} | {2} |\n",
            code.code, code.status, code.when
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_page() {
        let mut names: Vec<_> = ERROR_CODES.iter().map(|code| code.code).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(
            ERROR_CODES
                .iter()
                .all(|code| index().contains(&format!("[{}]", code.code)))
        );
    }
}

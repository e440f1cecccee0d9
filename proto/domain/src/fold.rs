//! The key by which names are compared.

use unicode_normalization::UnicodeNormalization as _;

use super::visible;

/// The key by which names are compared: two names are the same if their keys are equal. It is the NFKC form, with
/// case folded, without the ignorable characters that a name may contain.
pub fn fold(name: &str) -> String {
    let seen: String = name.nfkc().filter(|c| !visible::is_ignorable(*c)).collect();
    caseless::default_case_fold_str(&seen).nfkc().collect()
}

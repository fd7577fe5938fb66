//! Kinds of authentication.k8s.io: questions that are answered and not stored. The API server answers.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};

use crate::kind::Kind;

impl Kind for TokenReview {
    const VERBS: &'static [&'static str] = &["create"];
}

impl Kind for SelfSubjectReview {
    const VERBS: &'static [&'static str] = &["create"];
}

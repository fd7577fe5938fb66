//! The kinds that are questions: TokenReview, the access reviews, `kubectl auth can-i` and `whoami`.
//! They are created, answered and never stored.

use api::{Errors, Object, Path, Status, selector::FieldSelector};
use k8s_openapi::{
    api::{
        authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo},
        authorization::v1::{
            LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
            SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
            SubjectAccessReviewStatus, SubjectRulesReviewStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, ObjectMeta, Time},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Auth, authorize::Decision, node::node_of};
use crate::request::{RequestInfo, User};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Whether creates of this resource go to [`Auth::review`] instead of the store.
pub fn is_review(group: &str, resource: &str) -> bool {
    match group {
        AUTHENTICATION => matches!(resource, "tokenreviews" | "selfsubjectreviews"),
        AUTHORIZATION => matches!(
            resource,
            "subjectaccessreviews"
                | "localsubjectaccessreviews"
                | "selfsubjectaccessreviews"
                | "selfsubjectrulesreviews"
        ),
        _ => false,
    }
}

impl Auth {
    /// Answers a review. `object` is what the client sent, decoded; the answer is sent with 201.
    pub async fn review(&self, user: &User, request: &RequestInfo, object: Object) -> Result<Object, Status> {
        match request.resource.as_str() {
            "tokenreviews" => encode(self.token_review(decode(object)?)?),
            "selfsubjectreviews" => encode(self.self_subject_review(user, decode(object)?)),
            "subjectaccessreviews" => encode(self.subject_access_review(decode(object)?)?),
            "localsubjectaccessreviews" => encode(self.local_subject_access_review(request, decode(object)?)?),
            "selfsubjectaccessreviews" => encode(self.self_subject_access_review(user, decode(object)?)?),
            "selfsubjectrulesreviews" => encode(self.self_subject_rules_review(user, decode(object)?)?),
            _ => Err(Status::no_such_path()),
        }
    }

    fn token_review(&self, mut review: TokenReview) -> Result<TokenReview, Status> {
        if review.spec.token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = review.spec.audiences.clone().filter(|audiences| !audiences.is_empty());
        let audiences = audiences.unwrap_or_else(|| self.tokens.audiences.clone());
        review.status = Some(match self.token_user(&review.spec.token, &audiences) {
            Ok((mut user, shared)) => {
                user.groups.push("system:authenticated".into());
                TokenReviewStatus {
                    authenticated: Some(true),
                    audiences: Some(shared),
                    user: Some(user_info(&user)),
                    ..TokenReviewStatus::default()
                }
            }
            Err(why) => TokenReviewStatus { error: Some(why), ..TokenReviewStatus::default() },
        });
        Ok(review)
    }

    fn self_subject_review(&self, user: &User, _: SelfSubjectReview) -> SelfSubjectReview {
        SelfSubjectReview {
            metadata: ObjectMeta { creation_timestamp: Some(Time(self.clock.now())), ..ObjectMeta::default() },
            status: Some(SelfSubjectReviewStatus { user_info: Some(user_info(user)) }),
        }
    }

    fn subject_access_review(&self, mut review: SubjectAccessReview) -> Result<SubjectAccessReview, Status> {
        let mut errors = validate_subject(&review.spec);
        must_be_empty(&review.metadata, "must be empty", &mut errors);
        accept("SubjectAccessReview", errors)?;
        review.status = Some(self.answer(&review.spec));
        Ok(review)
    }

    fn local_subject_access_review(
        &self,
        request: &RequestInfo,
        mut review: LocalSubjectAccessReview,
    ) -> Result<LocalSubjectAccessReview, Status> {
        let mut errors = validate_subject(&review.spec);
        let namespace = review.metadata.namespace.get_or_insert_with(|| request.namespace.clone()).clone();
        must_be_empty(
            &ObjectMeta { namespace: None, ..review.metadata.clone() },
            "must be empty except for namespace",
            &mut errors,
        );
        if let Some(attributes) = &review.spec.resource_attributes {
            let asked = attributes.namespace.clone().unwrap_or_default();
            if asked != namespace {
                errors.invalid(&Path::new("spec.resourceAttributes.namespace"), asked, "must match metadata.namespace");
            }
        }
        if let Some(attributes) = &review.spec.non_resource_attributes {
            errors.invalid(&Path::new("spec.nonResourceAttributes"), attributes, "disallowed on this kind of request");
        }
        accept("LocalSubjectAccessReview", errors)?;
        if namespace != request.namespace {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                request.namespace
            )));
        }
        review.status = Some(self.answer(&review.spec));
        Ok(review)
    }

    fn self_subject_access_review(
        &self,
        user: &User,
        mut review: SelfSubjectAccessReview,
    ) -> Result<SelfSubjectAccessReview, Status> {
        let (resource, path) = (&review.spec.resource_attributes, &review.spec.non_resource_attributes);
        let mut errors = Errors::default();
        validate_attributes(resource.as_ref(), path.as_ref(), &mut errors);
        must_be_empty(&review.metadata, "must be empty", &mut errors);
        accept("SelfSubjectAccessReview", errors)?;
        review.status = Some(self.status_of(user, resource.as_ref(), path.as_ref()));
        Ok(review)
    }

    fn self_subject_rules_review(
        &self,
        user: &User,
        mut review: SelfSubjectRulesReview,
    ) -> Result<SelfSubjectRulesReview, Status> {
        let namespace = review.spec.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?;
        let (rules, mut missing) = self.rbac.rules_for(user, &namespace);
        let is_node = node_of(user).is_some();
        if is_node {
            missing.insert(0, "node authorizer does not support user rule resolution".into());
        }
        let some = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
        let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
        for rule in &rules {
            if !rule.resources.is_empty() {
                resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: some(&rule.api_groups),
                    resources: some(&rule.resources),
                    resource_names: some(&rule.resource_names),
                });
            }
            if !rule.non_resource_urls.is_empty() {
                let non_resource_urls = some(&rule.non_resource_urls);
                non_resource_rules.push(NonResourceRule { verbs: rule.verbs.clone(), non_resource_urls });
            }
        }
        review.status = Some(SubjectRulesReviewStatus {
            evaluation_error: some(&missing).map(|missing| missing.join(", ")),
            incomplete: is_node,
            resource_rules,
            non_resource_rules,
        });
        Ok(review)
    }

    fn answer(&self, spec: &SubjectAccessReviewSpec) -> SubjectAccessReviewStatus {
        let user = User {
            name: spec.user.clone().unwrap_or_default(),
            uid: spec.uid.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            extra: spec.extra.clone().unwrap_or_default(),
        };
        let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
        self.status_of(&user, resource, path)
    }

    fn status_of(
        &self,
        user: &User,
        resource: Option<&ResourceAttributes>,
        path: Option<&NonResourceAttributes>,
    ) -> SubjectAccessReviewStatus {
        let (selector, ignored) = selector_of(resource);
        let request = RequestInfo { field_selector: selector, ..request_of(resource, path) };
        let decision = self.authorize(user, &request);
        SubjectAccessReviewStatus {
            allowed: decision.is_allow(),
            denied: matches!(decision, Decision::Deny(_)).then_some(true),
            reason: Some(decision.reason().to_owned()).filter(|reason| !reason.is_empty()),
            evaluation_error: ignored,
        }
    }
}

fn decode<K: DeserializeOwned>(object: Object) -> Result<K, Status> {
    serde_json::from_value(object).map_err(|error| Status::bad_request(format!("the object cannot be read: {error}")))
}

fn encode(review: impl Serialize) -> Result<Object, Status> {
    serde_json::to_value(review).map_err(Status::internal)
}

fn accept(kind: &str, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(AUTHORIZATION, kind, "", errors)) }
}

fn user_info(user: &User) -> UserInfo {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    UserInfo {
        username: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}

fn request_of(resource: Option<&ResourceAttributes>, path: Option<&NonResourceAttributes>) -> RequestInfo {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    match (resource, path) {
        (Some(asked), _) => RequestInfo {
            verb: text(&asked.verb),
            is_resource: true,
            group: text(&asked.group),
            version: asked.version.clone().filter(|version| !version.is_empty()).unwrap_or_else(|| "*".into()),
            namespace: text(&asked.namespace),
            resource: text(&asked.resource),
            subresource: text(&asked.subresource),
            name: text(&asked.name),
            ..RequestInfo::default()
        },
        (None, Some(asked)) => RequestInfo { verb: text(&asked.verb), path: text(&asked.path), ..Default::default() },
        (None, None) => RequestInfo::default(),
    }
}

/// The field selector of a question, and a sentence where not all of it could be used. To ignore a requirement
/// makes the question wider, so the answer never promises too much.
fn selector_of(asked: Option<&ResourceAttributes>) -> (FieldSelector, Option<String>) {
    let Some(selector) = asked.and_then(|asked| asked.field_selector.as_ref()) else { return Default::default() };
    let requirements = selector.requirements.as_deref().unwrap_or_default();
    let terms: Vec<String> = requirements.iter().filter_map(selector_term).collect();
    let parsed = match &selector.raw_selector {
        Some(raw) if requirements.is_empty() => FieldSelector::parse(raw),
        _ => FieldSelector::parse(&terms.join(",")),
    };
    let how = match (&parsed, terms.len()) {
        (Ok(_), used) if used == requirements.len() => None,
        (Err(_), _) | (Ok(_), 0) => Some("ignored"),
        (Ok(_), _) => Some("partially ignored"),
    };
    let sentence = how.map(|how| format!("spec.resourceAttributes.fieldSelector {how} due to parse error"));
    (parsed.unwrap_or_default(), sentence)
}

/// `None` for what a field selector cannot express.
fn selector_term(requirement: &FieldSelectorRequirement) -> Option<String> {
    let sign = match requirement.operator.as_str() {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    let [value] = requirement.values.as_deref().unwrap_or_default() else { return None };
    let value = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
    let key = Some(&requirement.key).filter(|key| !key.contains(['\\', ',', '=', '!']))?;
    Some(format!("{key}{sign}{value}"))
}

fn must_be_empty(meta: &ObjectMeta, detail: &str, errors: &mut Errors) {
    let significant = ObjectMeta { managed_fields: None, creation_timestamp: None, ..meta.clone() };
    if significant != ObjectMeta::default() {
        errors.invalid(&Path::new("metadata"), meta, detail);
    }
}

fn validate_subject(spec: &SubjectAccessReviewSpec) -> Errors {
    let mut errors = Errors::default();
    validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), &mut errors);
    let no_groups = spec.groups.as_ref().is_none_or(Vec::is_empty);
    if spec.user.as_ref().is_none_or(String::is_empty) && no_groups {
        errors.invalid(&Path::new("spec").child("user"), "", "at least one of user or group must be specified");
    }
    errors
}

fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    errors: &mut Errors,
) {
    let spec = Path::new("spec");
    match (resource, path) {
        (Some(_), Some(path)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.invalid(&spec.child("nonResourceAttributes"), path, detail);
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&spec.child("resourceAttributes"), Object::Null, detail);
        }
        _ => {}
    }
    let selectors = resource.map(|asked| {
        let field = asked.field_selector.as_ref().map(|s| (s.raw_selector.clone(), s.requirements.is_some()));
        let label = asked.label_selector.as_ref().map(|s| (s.raw_selector.clone(), s.requirements.is_some()));
        [("fieldSelector", field), ("labelSelector", label)]
    });
    for (name, selector) in selectors.into_iter().flatten() {
        let path = spec.child("resourceAttributes").child(name);
        match selector {
            Some((Some(raw), true)) => {
                errors.invalid(&path.child("rawSelector"), raw, "may not specified at the same time as requirements");
            }
            Some((None, false)) => {
                let detail = format!("when {path} is specified, requirements or rawSelector is required");
                errors.required(&path.child("requirements"), &detail);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Cluster, parse_request, user};

    async fn review(auth: &Auth, by: &User, resource: &str, object: Object) -> Result<Object, String> {
        let group = if resource.ends_with("accessreviews") || resource.ends_with("rulesreviews") {
            AUTHORIZATION
        } else {
            AUTHENTICATION
        };
        assert!(is_review(group, resource), "{resource}");
        let prefix = if resource.starts_with("local") { "namespaces/a/" } else { "" };
        let request = parse_request(&format!("POST /apis/{group}/v1/{prefix}{resource}"));
        auth.review(by, &request, object).await.map_err(|status| status.message)
    }

    #[tokio::test]
    async fn can_i() {
        let cluster = Cluster::default();
        cluster.bind("alice", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]));
        let (auth, alice) = (cluster.auth(), user("alice", &["team"]));
        let ask =
            |verb: &str| json!({"spec": {"resourceAttributes": {"namespace": "a", "verb": verb, "resource": "pods"}}});
        let answer = review(&auth, &alice, "selfsubjectaccessreviews", ask("list")).await.unwrap();
        assert_eq!(answer["status"]["allowed"], true);
        assert_eq!(answer["kind"], "SelfSubjectAccessReview");
        let answer = review(&auth, &alice, "selfsubjectaccessreviews", ask("delete")).await.unwrap();
        assert_eq!(answer["status"], json!({"allowed": false}));
        let refused = review(&auth, &alice, "selfsubjectaccessreviews", json!({"spec": {}})).await.unwrap_err();
        assert!(refused.contains("exactly one of nonResourceAttributes or resourceAttributes"), "{refused}");

        let mut about = ask("list");
        about["spec"]["user"] = "alice".into();
        for resource in ["subjectaccessreviews", "localsubjectaccessreviews"] {
            let root = user("root", &[]);
            assert_eq!(review(&auth, &root, resource, about.clone()).await.unwrap()["status"]["allowed"], true);
        }
        let answer =
            review(&auth, &alice, "selfsubjectrulesreviews", json!({"spec": {"namespace": "a"}})).await.unwrap();
        assert_eq!(
            answer["status"]["resourceRules"],
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
        );
    }

    #[tokio::test]
    async fn a_kubelet_may_list_its_own_pods_only() {
        let (auth, root) = (Cluster::default().auth(), user("root", &[]));
        let rows = [
            (json!({"rawSelector": "spec.nodeName=n1"}), true, json!(null)),
            (
                json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]}),
                true,
                json!(null),
            ),
            (
                json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n2"]}]}),
                false,
                json!(null),
            ),
            (
                json!({"requirements": [{"key": "spec.nodeName", "operator": "Exists"}]}),
                false,
                json!("spec.resourceAttributes.fieldSelector ignored due to parse error"),
            ),
        ];
        for (selector, allowed, error) in rows {
            let about = json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"],
                "resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}}});
            let status = review(&auth, &root, "subjectaccessreviews", about).await.unwrap()["status"].clone();
            assert_eq!((&status["allowed"], &status["evaluationError"]), (&json!(allowed), &error), "{selector}");
        }
    }

    #[tokio::test]
    async fn who_am_i_and_whose_token_is_this() {
        let cluster = Cluster::default();
        let account = json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u1"}});
        cluster.put("", "serviceaccounts", account.clone());
        let auth = cluster.auth();
        let answer = review(&auth, &user("alice", &["team"]), "selfsubjectreviews", json!({})).await.unwrap();
        assert_eq!(answer["status"]["userInfo"], json!({"username": "alice", "groups": ["team"]}));
        let token = auth.create_token(&account, json!({"spec": {}})).unwrap()["status"]["token"].clone();
        let answer = review(&auth, &user("x", &[]), "tokenreviews", json!({"spec": {"token": token}})).await.unwrap();
        assert_eq!(answer["status"]["authenticated"], true);
        assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:a:robot");
        let answer = review(&auth, &user("x", &[]), "tokenreviews", json!({"spec": {"token": "bad"}})).await.unwrap();
        assert_eq!(answer["status"]["error"], "invalid bearer token");
    }
}

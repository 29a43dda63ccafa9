//! Errors in the form that ARM clients expect.

use http::StatusCode;
use serde_json::{Value, json};

/// A stable error code with its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// PascalCase, as AKS and ARM use it.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// One sentence for the generated page: the cause.
    pub when: &'static str,
    /// One sentence for the generated page: the remedy.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $status:literal, $when:literal, $remedy:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: ErrorCode =
                ErrorCode { code: $code, status: $status, when: $when, remedy: $remedy };)*
        }
        /// All codes, in order of declaration; `cargo xtask docs` writes a page for each.
        pub const ERROR_CODES: &[ErrorCode] = &[$(ErrorCode::$name),*];
    };
}

codes! {
    /// Malformed JSON.
    INVALID_REQUEST_CONTENT = "InvalidRequestContent" 400,
        "The body is not JSON, or not an object where one is needed.",
        "Send a JSON object; the message names the line and column.";
    /// A field of the wrong type, outside its range or not of its pattern.
    INVALID_PARAMETER = "InvalidParameter" 400,
        "A field has a wrong type, an unknown enum value, or is outside its range or pattern.",
        "Correct the field in `target`; `details` lists every problem of the body.";
    /// A field that this api-version does not have.
    UNKNOWN_PROPERTY = "UnknownProperty" 400,
        "The body has a property that the API does not know.",
        "Check the spelling, or remove the property in `target`.";
    /// A known field that Landfall does not implement yet.
    PROPERTY_NOT_SUPPORTED = "PropertyNotSupported" 400,
        "The body asks for something that Landfall does not do yet. Nothing is dropped silently.",
        "Remove the property in `target`, or give it the value that the message names. The compatibility page lists what works.";
    /// A required field is missing.
    MISSING_PARAMETER = "MissingRequiredParameter" 400,
        "A required property is missing.",
        "Add the property in `target`.";
    /// A create-only field changed.
    PROPERTY_CHANGE_NOT_ALLOWED = "PropertyChangeNotAllowed" 400,
        "A property that can only be set at creation was changed.",
        "Send the present value, or make a new resource.";
    /// Several problems.
    VALIDATION_ERROR = "ValidationError" 400,
        "The body has several problems; each is one of `details`.",
        "Correct each of them.";
    /// A resource name not of its pattern.
    INVALID_RESOURCE_NAME = "InvalidResourceName" 400,
        "A name in the path does not match its pattern.",
        "Choose a name of the pattern in the message.";
    /// Not offered by this stamp.
    K8S_VERSION_NOT_SUPPORTED = "K8sVersionNotSupported" 400,
        "This Kubernetes version is not offered here.",
        "Choose one of the versions in the message; `az aks get-versions` lists them.";
    /// A pool too far from its control plane.
    NODE_POOL_VERSION_INCOMPATIBLE = "NodePoolMcVersionIncompatible" 400,
        "A pool's version is newer than its control plane's, or too far behind.",
        "Choose a version within the skew that the message names.";
    /// The DNS address is outside the service range.
    DNS_SERVICE_IP_OUT_OF_SERVICE_CIDR = "DnsServiceIpOutOfServiceCidr" 400,
        "`networkProfile.dnsServiceIP` is not in `networkProfile.serviceCidr`.",
        "Choose an address in the range, not its first.";
    /// Ranges overlap.
    SERVICE_CIDR_OVERLAP = "ServiceCidrOverlapExistingSubnetsCidr" 400,
        "Ranges of the cluster overlap each other.",
        "Choose ranges that do not overlap.";
    /// No room in the subnet.
    INSUFFICIENT_SUBNET_SIZE = "InsufficientSubnetSize" 400,
        "A range has too few addresses for the nodes and pods asked for.",
        "Ask for fewer nodes or pods, or for a larger range.";
    /// No room left in a tenant's subnet.
    SUBNET_IS_FULL = "SubnetIsFull" 400,
        "A subnet has fewer free addresses than are asked for.",
        "Ask for fewer nodes, use another subnet, or free addresses of this one; the message has the figures.";
    /// A malformed range.
    INVALID_CIDR_NOTATION = "InvalidCIDRNotation" 400,
        "An address prefix is not one of IPv4, or has bits set behind its length.",
        "Send the prefix that the message names, e.g. `10.1.0.0/16`.";
    /// An invalid subnet.
    NETCFG_INVALID_SUBNET = "NetcfgInvalidSubnet" 400,
        "A subnet's name or range is not valid in its virtual network: ranges are from /2 to /29.",
        "Choose another one.";
    /// Outside its VNET.
    NETCFG_SUBNET_OUTSIDE = "NetcfgSubnetRangeOutsideVnet" 400,
        "A subnet's range is outside the address space of its virtual network.",
        "Choose a range inside, or add one to the virtual network's address space first.";
    /// Overlaps another subnet.
    NETCFG_SUBNET_RANGES_OVERLAP = "NetcfgSubnetRangesOverlap" 400,
        "A subnet's range overlaps that of another subnet of its virtual network.",
        "Choose a range that is free; `az network vnet subnet list` shows what is not.";
    /// The subnet is in use.
    IN_USE_SUBNET = "InUseSubnetCannotBeDeleted" 400,
        "A subnet, or a virtual network with it, cannot be deleted or moved while a cluster's nodes are in it.",
        "Delete the node pools or clusters that the message names; wait until they are gone.";
    /// The public IP address is in use by a Service.
    IN_USE_PUBLIC_ADDRESS = "PublicIPAddressCannotBeDeleted" 400,
        "A public IP address cannot be deleted while a Service of a cluster has it.",
        "Delete the Service that the message names, or take the address away from it.";
    /// The security group is in use by subnets.
    IN_USE_SECURITY_GROUP = "InUseNetworkSecurityGroupCannotBeDeleted" 400,
        "A network security group cannot be deleted while subnets go by it.",
        "Take it away from the subnets that the message names first.";
    /// Two rules with the same priority.
    SECURITY_RULE_CONFLICT = "SecurityRuleConflict" 400,
        "Two rules of a network security group have the same priority and direction.",
        "Give one of them another priority.";
    /// A reference to a resource that does not exist.
    INVALID_RESOURCE_REFERENCE = "InvalidResourceReference" 400,
        "The body names a resource that is not there, or that is of another kind.",
        "Check the id; make the resource first.";
    /// Not possible in this state, or never.
    OPERATION_NOT_ALLOWED = "OperationNotAllowed" 400,
        "The change is not allowed; the message says why and what is.",
        "Follow the message.";
    /// No api-version.
    MISSING_API_VERSION = "MissingApiVersionParameter" 400,
        "The query has no `api-version`.",
        "Add `?api-version=` with one of the versions in the message.";
    /// Unknown api-version.
    INVALID_API_VERSION = "InvalidApiVersionParameter" 400,
        "The `api-version` is not one that this resource type has.",
        "Use one of the versions in the message.";
    /// Bad conditional headers.
    BAD_REQUEST = "BadRequest" 400,
        "The request contradicts itself or the HTTP or ARM rules.",
        "Follow the message.";
    /// Unknown location.
    LOCATION_NOT_AVAILABLE = "LocationNotAvailableForResourceType" 400,
        "The location is not one of this stamp's.",
        "Use the location in the message; `az account list-locations` lists them.";
    /// Unknown location of a group.
    GROUP_LOCATION_NOT_AVAILABLE = "LocationNotAvailableForResourceGroup" 400,
        "The location asked for a resource group is not one of this stamp's.",
        "Use the location in the message; `az account list-locations` lists them.";
    /// Location of a group changed.
    INVALID_GROUP_LOCATION = "InvalidResourceGroupLocation" 409,
        "The resource group exists in another location.",
        "Send the location it has, or choose another name.";
    /// Location changed.
    INVALID_RESOURCE_LOCATION = "InvalidResourceLocation" 409,
        "The resource exists in another location.",
        "Send the location it has, or choose another name.";
    /// No token.
    AUTHENTICATION_FAILED = "AuthenticationFailed" 401,
        "There is no bearer token.",
        "Log in: `landfall az` prepares the Azure CLI.";
    /// An invalid token.
    INVALID_AUTHENTICATION_TOKEN = "InvalidAuthenticationToken" 401,
        "The token is malformed, was signed by somebody else, or is for another audience.",
        "Log in again.";
    /// An expired token.
    EXPIRED_AUTHENTICATION_TOKEN = "ExpiredAuthenticationToken" 401,
        "The token has expired.",
        "Log in again.";
    /// No permission.
    AUTHORIZATION_FAILED = "AuthorizationFailed" 403,
        "The principal may not do this here.",
        "Ask for a role at this scope.";
    /// No permission for a resource that the body names.
    LINKED_AUTHORIZATION_FAILED = "LinkedAuthorizationFailed" 403,
        "The principal may do this here, but not with another resource that the body names, or there is no such resource.",
        "Ask for a role with the action in the message at the scope in the message, e.g. 'Managed Identity Operator' at an identity.";
    /// An identity that cannot be assigned.
    FAILED_IDENTITY_OPERATION = "FailedIdentityOperation" 400,
        "A user-assigned identity that the body names does not exist, or does no longer.",
        "Make the identity (`az identity create`), or name another one.";
    /// The cluster's identity lacks permission to assign the kubelets'.
    CUSTOM_KUBELET_IDENTITY_MISSING_PERMISSION = "CustomKubeletIdentityMissingPermissionError" 400,
        "The cluster's identity may not assign the identity that the kubelets are to have.",
        "Give the cluster's identity the role 'Managed Identity Operator' at the kubelets' identity.";
    /// Locked.
    SCOPE_LOCKED = "ScopeLocked" 409,
        "A lock forbids this at the scope, above it, or, for deletions, below.",
        "`az lock list` shows it; whoever may delete it decides.";
    /// The same assignment exists under another name.
    ROLE_ASSIGNMENT_EXISTS = "RoleAssignmentExists" 409,
        "The principal has this role at this scope already.",
        "Nothing; `az role assignment list` shows it.";
    /// Assignments cannot be changed.
    ROLE_ASSIGNMENT_UPDATE_NOT_PERMITTED = "RoleAssignmentUpdateNotPermitted" 400,
        "There is a role assignment of this name, of another principal, role or scope.",
        "Choose another name, or delete that assignment first.";
    /// The last assignment that permits granting roles.
    LAST_ADMIN_ASSIGNMENT = "CannotDeleteLastRbacAdminAssignment" 409,
        "Without this role assignment nobody could give rights at the whole stamp any more.",
        "Give somebody else a role that may, at `/`; then delete this.";
    /// No such assignment.
    ROLE_ASSIGNMENT_NOT_FOUND = "RoleAssignmentNotFound" 404,
        "There is no such role assignment.",
        "`az role assignment list --all` shows what there is.";
    /// Too many assignments.
    ROLE_ASSIGNMENT_LIMIT = "RoleAssignmentLimitExceeded" 400,
        "A subscription, or the stamp itself, has as many role assignments as it may have.",
        "Delete some that are not needed.";
    /// No such role.
    ROLE_DEFINITION_DOES_NOT_EXIST = "RoleDefinitionDoesNotExist" 404,
        "There is no such role, or it cannot be used at this scope.",
        "`az role definition list` shows what there is.";
    /// The name of the role is in use.
    ROLE_DEFINITION_WITH_SAME_NAME_EXISTS = "RoleDefinitionWithSameNameExists" 409,
        "Another role has this name.",
        "Choose another name.";
    /// Too many custom roles.
    ROLE_DEFINITION_LIMIT = "RoleDefinitionLimitExceeded" 400,
        "The stamp has as many custom roles as it may have.",
        "Delete some that are not needed.";
    /// The role is in use.
    ROLE_DEFINITION_HAS_ASSIGNMENTS = "RoleDefinitionHasAssignments" 400,
        "The role is assigned to somebody.",
        "Delete the assignments first; the message says how many there are.";
    /// A built-in role.
    CANNOT_CHANGE_BUILT_IN_ROLE = "CannotUpdateBuiltInRoleDefinition" 403,
        "Built-in roles cannot be changed or deleted.",
        "Make a custom role.";
    /// No such principal.
    PRINCIPAL_NOT_FOUND = "PrincipalNotFound" 400,
        "Nobody here has this object id.",
        "Check the object id; for one that is to come, say its `principalType`.";
    /// A principal of another type.
    UNMATCHED_PRINCIPAL_TYPE = "UnmatchedPrincipalType" 400,
        "The principal is of another kind than `principalType` says.",
        "Leave `principalType` out, or send the one in the message.";
    /// No such lock.
    LOCK_NOT_FOUND = "LockNotFound" 404,
        "There is no such lock.",
        "`az lock list` shows what there is.";
    /// No such subscription.
    SUBSCRIPTION_NOT_FOUND = "SubscriptionNotFound" 404,
        "There is no such subscription.",
        "`az account list` shows yours.";
    /// Nothing is changed in the subscription.
    READ_ONLY_DISABLED_SUBSCRIPTION = "ReadOnlyDisabledSubscription" 409,
        "The operator of the stamp has disabled the subscription: it is read, and what is in it can be deleted, and nothing else.",
        "Ask the operator to enable it again (`landfall subscription enable`).";
    /// The subscription does not use the provider.
    MISSING_SUBSCRIPTION_REGISTRATION = "MissingSubscriptionRegistration" 409,
        "The subscription has unregistered the resource provider.",
        "`az provider register --namespace …` registers it again; the message names it.";
    /// No such group.
    RESOURCE_GROUP_NOT_FOUND = "ResourceGroupNotFound" 404,
        "There is no such resource group.",
        "`az group create` makes one.";
    /// No such resource.
    RESOURCE_NOT_FOUND = "ResourceNotFound" 404,
        "There is no such resource.",
        "Check the name; `az aks list` shows what is there.";
    /// No such parent.
    PARENT_RESOURCE_NOT_FOUND = "ParentResourceNotFound" 404,
        "The resource that this one belongs to does not exist.",
        "Make the parent first.";
    /// No such provider.
    INVALID_RESOURCE_NAMESPACE = "InvalidResourceNamespace" 404,
        "There is no such resource provider here.",
        "`az provider list` shows what there is.";
    /// No such type.
    INVALID_RESOURCE_TYPE = "InvalidResourceType" 404,
        "The resource provider has no such type.",
        "Check the path.";
    /// No such operation.
    OPERATION_NOT_FOUND = "OperationNotFound" 404,
        "There is no such operation, or it ended more than seven days ago.",
        "Read the resource instead.";
    /// No such path.
    NOT_FOUND = "NotFound" 404,
        "Nothing is served at this path.",
        "Check the path.";
    /// Wrong method.
    METHOD_NOT_ALLOWED = "MethodNotAllowed" 405,
        "The path exists, the method does not.",
        "Use one of the methods in `Allow`.";
    /// Wrong state.
    CONFLICT = "Conflict" 409,
        "The request cannot be merged with what is going on.",
        "Wait for it to end, or abort it.";
    /// An operation that a later request replaced.
    PREEMPTED = "AKSOperationPreempted" 409,
        "A later request about the same resource asks for something else. The operation was ended for it; the work goes on towards the later request.",
        "Nothing; the message names the later operation. Repeat the request if the earlier request is the right one.";
    /// An operation that was aborted.
    OPERATION_CANCELED = "OperationCanceled" 409,
        "The operation was aborted on request. The cluster returns to what it was to be when it was last complete.",
        "Nothing; the next request is accepted as always.";
    /// An operation that a deletion replaced.
    PREEMPTED_BY_DELETE = "AKSOperationPreemptedByDelete" 409,
        "The operation was cancelled because its cluster is being deleted.",
        "Nothing; wait for the deletion, then make the cluster anew if it is still wanted.";
    /// An operation that exceeded its time.
    OPERATION_TIMED_OUT = "OperationTimedOut" 504,
        "The operation was not finished within its bound. It is told as failed and blocks nothing; the work goes on.",
        "The message names the machine and what its log says last; `landfall status` shows whether it got on since.";
    /// A node could not be drained.
    POD_DRAIN_FAILURE = "PodDrainFailure" 409,
        "A node that was to be replaced was not drained within the drain timeout of its pool; in most cases a disruption budget permits no eviction.",
        "The message names node, pod and reason. Make the eviction possible (`kubectl get pdb -A`), then repeat the request; or set a longer `drainTimeoutInMinutes` for the pool.";
    /// The requested version lacks an API in use.
    UPGRADE_BLOCKED_ON_DEPRECATED_API_USAGE = "UpgradeBlockedOnDeprecatedAPIUsage" 400,
        "The requested version lacks an API that was used in the last twelve hours.",
        "Migrate the clients of the API in the message, or override the check with `az aks update --enable-force-upgrade --upgrade-override-until`.";
    /// Being deleted.
    RESOURCE_GROUP_BEING_DELETED = "ResourceGroupBeingDeleted" 409,
        "The resource group is being deleted.",
        "Wait until it is gone.";
    /// ETag mismatch.
    PRECONDITION_FAILED = "PreconditionFailed" 412,
        "`If-Match` or `If-None-Match` does not hold.",
        "Read the resource again and repeat with its present eTag.";
    /// Too large.
    REQUEST_CONTENT_TOO_LARGE = "RequestContentTooLarge" 413,
        "The body is larger than 4 MiB.",
        "Send less.";
    /// Wrong media type.
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType" 415,
        "The body is not `application/json`.",
        "Send JSON.";
    /// Resources cannot be moved.
    RESOURCE_MOVE_NOT_SUPPORTED = "ResourceMoveNotSupported" 409,
        "Resources of this type cannot be moved to another resource group or subscription.",
        "Make it anew there; the backup of a cluster can be restored in another group (`landfall backup restore --as`).";
    /// No such feature.
    FEATURE_NOT_FOUND = "FeatureNotFound" 404,
        "The provider has no such preview feature.",
        "Nothing has to be registered: what works, works; `az feature list` shows what there is.";
    /// Quota.
    QUOTA_EXCEEDED = "QuotaExceeded" 400,
        "A limit would be exceeded; the message states it.",
        "Ask for less, or for a higher limit.";
    /// Too many requests in a subscription.
    SUBSCRIPTION_REQUESTS_THROTTLED = "SubscriptionRequestsThrottled" 429,
        "The principal, or all principals of the subscription together, have sent more requests than their budget has.",
        "Repeat after `Retry-After`, as Azure's clients do by themselves; nothing was done. The operator can change the budgets (`landfall up --limit`).";
    /// Too many requests outside of subscriptions.
    TENANT_REQUESTS_THROTTLED = "TenantRequestsThrottled" 429,
        "The principal has sent more requests about things in no subscription than its budget has.",
        "Repeat after `Retry-After`, as Azure's clients do by themselves; nothing was done. The operator can change the budgets (`landfall up --limit`).";
    /// An internal error.
    INTERNAL = "InternalServerError" 500,
        "Landfall has a fault or cannot reach its store. The log has the cause under the request id.",
        "Repeat; if it persists, report it with the request id.";
    /// Not implemented yet.
    NOT_IMPLEMENTED = "NotImplemented" 501,
        "The operation is part of the API and not there yet in Landfall.",
        "The compatibility page lists what works.";
    /// Temporarily unavailable.
    SERVICE_UNAVAILABLE = "ServiceUnavailable" 503,
        "Something needed is not there at the moment.",
        "Repeat after `Retry-After`.";
}

/// One of several problems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Its code.
    pub code: ErrorCode,
    /// The problem.
    pub message: String,
    /// The field, as a path such as `properties.agentPoolProfiles[0].count`.
    pub target: Option<String>,
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.code)]
pub struct ArmError {
    /// Code and HTTP status.
    pub code: ErrorCode,
    /// The problem and the remedy, for the caller.
    pub message: String,
    /// The field or part.
    pub target: Option<String>,
    /// All problems, where there are several.
    pub details: Vec<Detail>,
    /// The internal cause, for the log only.
    pub internal: Option<String>,
}

impl ArmError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            target: None,
            details: Vec::new(),
            internal: None,
        }
    }

    /// Adds the field.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// An internal error: the caller gets a general sentence, the log the cause.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let mut error = Self::new(
            ErrorCode::INTERNAL,
            "An internal error occurred; the request may be repeated.",
        );
        error.internal = Some(cause.to_string());
        error
    }

    /// All problems of a body in one response: a single problem is its own error, several become a
    /// `ValidationError`.
    pub fn from_details(mut details: Vec<Detail>) -> Option<Self> {
        match details.len() {
            0 => None,
            1 => {
                let Detail {
                    code,
                    message,
                    target,
                } = details.remove(0);
                Some(Self {
                    code,
                    message,
                    target,
                    details: Vec::new(),
                    internal: None,
                })
            }
            count => {
                let mut error = Self::new(
                    ErrorCode::VALIDATION_ERROR,
                    format!(
                        "The request has {count} problems; the first: {}",
                        details[0].message
                    ),
                );
                error.target.clone_from(&details[0].target);
                error.details = details;
                Some(error)
            }
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `{"error":{"code","message","target"?,"details"?}}`
    pub fn body(&self) -> Value {
        let mut error = json!({ "code": self.code.code, "message": self.message });
        if let Some(target) = &self.target {
            error["target"] = json!(target);
        }
        if !self.details.is_empty() {
            error["details"] = self
                .details
                .iter()
                .map(|detail| {
                    let mut item = json!({ "code": detail.code.code, "message": detail.message });
                    if let Some(target) = &detail.target {
                        item["target"] = json!(target);
                    }
                    item
                })
                .collect();
        }
        json!({ "error": error })
    }
}

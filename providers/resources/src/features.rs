//! `Microsoft.Features`: preview features of providers, and their registration in subscriptions. No provider
//! here has any: implemented features need no registration, and registering does not enable others.

use arm_kernel::{
    Gate, Items, Namespace, Operation, ResourceType, Scope,
    Verb::{Action, Get},
    quote,
};
use arm_wire::{ArmError, ErrorCode, Request};

/// The namespace.
pub const FEATURES_NAMESPACE: &str = "Microsoft.Features";

const VERSIONS: &[&str] = &["2021-07-01", "2015-12-01"];

/// The provider.
pub struct Features;

type Row = Operation<Features>;

impl Namespace for Features {
    const NAME: &'static str = FEATURES_NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[&ALL, &OF_PROVIDER, &REGISTRATIONS];
}

const fn kind(path: &'static str, operations: &'static [Row]) -> ResourceType<Features> {
    ResourceType {
        path,
        versions: VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

const fn none(name: &'static str) -> Row {
    Row::items(name, |_, _| Box::pin(async { Ok(Items::ById(Vec::new())) }))
        .gate(Gate::Reaches)
        .at(Scope::Subscription)
}

const ALL: ResourceType<Features> = kind("features", &[none("Features_ListAll")]);

const OF_PROVIDER: ResourceType<Features> = kind(
    "providers/features",
    &[
        none("Features_List"),
        Row::read(Get, "Features_Get", |_, call| {
            Box::pin(async { Err(unknown(&call.request)) })
        })
        .gate(Gate::Reaches)
        .at(Scope::Subscription),
        Row::write(
            Action("register"),
            "Features_Register",
            |_, call| Box::pin(async { Err(unknown(&call.request)) }),
            |_, call| Box::pin(async { Err(unknown(&call.request)) }),
        )
        .at(Scope::Subscription),
        Row::write(
            Action("unregister"),
            "Features_Unregister",
            |_, call| Box::pin(async { Err(unknown(&call.request)) }),
            |_, call| Box::pin(async { Err(unknown(&call.request)) }),
        )
        .at(Scope::Subscription),
    ],
);

const REGISTRATIONS: ResourceType<Features> = kind(
    "subscriptionFeatureRegistrations",
    &[none("SubscriptionFeatureRegistrations_ListAllBySubscription")],
);

fn unknown(request: &Request) -> ArmError {
    let (provider, feature) = (request.path.name(0), request.path.name(1));
    let message = format!(
        "The feature {} of the provider {} could not be found: there are no preview features here, and nothing has to be registered.",
        quote(feature.unwrap_or_default()),
        quote(provider.unwrap_or_default())
    );
    ArmError::new(ErrorCode::FEATURE_NOT_FOUND, message)
}

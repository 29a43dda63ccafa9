//! What routes requests from outside to a cluster's Services (`ingressProfile`).

use serde::{Deserialize, Serialize};

/// The parts of `ingressProfile` that clusters are made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// Where the ingress controller is reached; `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<IngressReach>,
    /// Whether the kinds of the Gateway API are defined in the cluster.
    pub gateway_api: bool,
}

impl IngressSpec {
    /// Whether nothing of it was asked for.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the controller routes by Gateways as well.
    pub fn has_gateways(&self) -> bool {
        self.controller.is_some() && self.gateway_api
    }
}

/// Where an ingress controller is reached (`nginx.defaultIngressControllerType`, in AKS' words).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngressReach {
    /// At a public address, unless the annotations of its Service say otherwise.
    #[default]
    AnnotationControlled,
    /// At a public address.
    External,
    /// At an address of the nodes' subnet.
    Internal,
}

impl IngressReach {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnnotationControlled => "AnnotationControlled",
            Self::External => "External",
            Self::Internal => "Internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::{
        IntoDeserializer as _,
        value::{Error, StrDeserializer},
    };

    use super::*;

    #[test]
    fn a_reach_is_read_as_the_api_has_it() {
        for reach in [
            IngressReach::AnnotationControlled,
            IngressReach::External,
            IngressReach::Internal,
        ] {
            let text: StrDeserializer<'_, Error> = reach.name().into_deserializer();
            assert_eq!(IngressReach::deserialize(text).unwrap(), reach);
        }
    }

    #[test]
    fn gateways_need_a_controller() {
        let mut spec = IngressSpec {
            gateway_api: true,
            ..IngressSpec::default()
        };
        assert!(!spec.has_gateways() && !spec.is_nothing());
        spec.controller = Some(IngressReach::Internal);
        assert!(spec.has_gateways());
    }
}

//! A client of our own directory API (Microsoft Graph's part of the stamp), like [`crate::arm`] for the ARM
//! API: with the service principal's secret, and without privileges over other clients.

use anyhow::{Context as _, Result, ensure};
use base_env::Env;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::{
    arm::{ArmClient, encode},
    stamp::{Places, Settings},
};

/// A client that is logged in.
pub(crate) struct GraphClient {
    client: ArmClient,
    base: String,
}

impl GraphClient {
    /// Finds the API as any client does, and logs in.
    pub(crate) async fn login(places: &Places, settings: &Settings, env: &Env) -> Result<Self> {
        let (client, resource) =
            ArmClient::session(places, settings, env, "/microsoftGraphResourceId").await?;
        Ok(Self {
            client,
            base: format!("{}/v1.0", resource.trim_end_matches('/')),
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        act: &str,
    ) -> Result<Option<Value>> {
        let url = format!("{}{path}", self.base);
        let answer = self.client.send(method.clone(), &url, body).await?;
        if answer.status() == StatusCode::NOT_FOUND && method == Method::GET {
            return Ok(None);
        }
        let answer = self.client.checked(answer, act).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(Some(Value::Null));
        }
        Ok(Some(answer.json().await.context("the answer is not JSON")?))
    }

    /// An object, or `None` if it does not exist.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.ask(Method::GET, path, None, "read the directory").await
    }

    /// All items of a list, page by page; with a filter, those that match it.
    pub(crate) async fn list(&self, path: &str, filter: Option<&str>) -> Result<Vec<Value>> {
        let mut url = format!("{}{path}", self.base);
        if let Some(filter) = filter {
            url.push_str(&format!("?$filter={}", encode(filter)));
        }
        let mut items = Vec::new();
        loop {
            let answer = self.client.send(Method::GET, &url, None).await?;
            let answer = self.client.checked(answer, "read the directory").await?;
            let mut page: Value = answer.json().await.context("the answer is not JSON")?;
            if let Value::Array(more) = page["value"].take() {
                items.extend(more);
            }
            let Value::String(next) = page["@odata.nextLink"].take() else {
                return Ok(items);
            };
            // The token goes to the stamp only.
            ensure!(
                next.starts_with(&format!("{}/", self.base)),
                "the next page of {path} is said to be at {next}, which is not the stamp"
            );
            url = next;
        }
    }

    /// Makes an object, or calls an action on it.
    pub(crate) async fn post(&self, path: &str, body: &Value, act: &str) -> Result<Value> {
        let answer = self.ask(Method::POST, path, Some(body), act).await?;
        Ok(answer.unwrap_or_default())
    }

    /// Changes an object.
    pub(crate) async fn patch(&self, path: &str, body: &Value, act: &str) -> Result<()> {
        self.ask(Method::PATCH, path, Some(body), act).await.map(drop)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, path: &str, act: &str) -> Result<()> {
        self.ask(Method::DELETE, path, None, act).await.map(drop)
    }
}

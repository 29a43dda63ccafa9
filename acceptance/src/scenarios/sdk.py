"""Drives a stamp with Azure's SDK for Python, as an application would: no setting of it knows of Landfall but addresses and names.

Reads its settings from the environment, and prints a line of JSON for each thing that was tried. Ends with an error where an answer is not as
it has to be.
"""

import base64
import json
import os
import subprocess
import sys
import time
import uuid
from importlib import metadata

import browser
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    DeviceCodeCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.containerservice import ContainerServiceClient
from azure.mgmt.containerservice import models
from azure.mgmt.resource.resources import ResourceManagementClient

ENDPOINT = os.environ["ENDPOINT"]
TENANT = os.environ["TENANT"]
CLIENT = os.environ["CLIENT"]
SUBSCRIPTION = os.environ["SUBSCRIPTION"]
AUDIENCE = os.environ["AUDIENCE"]
GROUP = os.environ["GROUP"]
CLUSTER = "sdk"
# The authority is not one of Azure's, so nobody is to be asked about it.
AUTHORITY = {"authority": ENDPOINT, "disable_instance_discovery": True}
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def credential(secret):
    return ClientSecretCredential(TENANT, CLIENT, secret, **AUTHORITY)


def approve(address, code, _):
    """What a person does who is shown a device code."""
    person = {"username": os.environ["USER_NAME"], "password": os.environ["PASSWORD"]}
    *_, last = browser.pages(address, [{"user_code": code}, person])
    check(last.status == 200, f"the last page: {last.text()}")


def others():
    """Other ways to log in."""
    program = os.environ["PROGRAM"]
    yield "certificate", CertificateCredential(TENANT, program, os.environ["CERTIFICATE"], **AUTHORITY)
    yield "workload identity", WorkloadIdentityCredential(
        tenant_id=TENANT, client_id=program, token_file_path=os.environ["ASSERTION_FILE"], **AUTHORITY
    )
    yield "device code", DeviceCodeCredential(tenant_id=TENANT, prompt_callback=approve, **AUTHORITY)


def told(what, **found):
    print(json.dumps({"tried": what, **found}), flush=True)


def check(condition, what):
    if not condition:
        sys.exit(f"not as it has to be: {what}")


def refused(what, status, code, act):
    try:
        act()
    except HttpResponseError as error:
        found = error.error.code if error.error else None
        check((error.status_code, found) == (status, code), f"{what}: {error.status_code} {found}: {error}")
        told(what, status=status, code=code)
        return error
    sys.exit(f"not as it has to be: {what} was accepted")


COMMON = {"base_url": ENDPOINT, "credential_scopes": [AUDIENCE + "/.default"]}


def clients(secret):
    own = credential(secret)
    return (
        ContainerServiceClient(own, SUBSCRIPTION, **COMMON),
        ResourceManagementClient(own, SUBSCRIPTION, **COMMON),
        AuthorizationManagementClient(own, SUBSCRIPTION, **COMMON),
    )


def ready_nodes(aks):
    """Nodes that are Ready, by the kubectl of the node image with the kubeconfig that the SDK was given."""
    found = aks.managed_clusters.list_cluster_admin_credentials(GROUP, CLUSTER)
    value = found.kubeconfigs[0].value
    # Bytes that are decoded, or their base64, by the generation of the SDK.
    text = bytes(value) if not isinstance(value, str) else base64.b64decode(value)
    with open("sdk.kubeconfig", "wb") as file:
        file.write(text)
    shown = subprocess.run(
        [os.environ["KUBECTL"], "--kubeconfig", "sdk.kubeconfig", "get", "nodes", "--output", "json"],
        check=True,
        capture_output=True,
    )
    ready = 0
    for node in json.loads(shown.stdout)["items"]:
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        ready += conditions.get("Ready") == "True"
    return ready


def main():
    secret = os.environ["SECRET"]
    told("versions", sdk=metadata.version("azure-mgmt-containerservice"), identity=metadata.version("azure-identity"))

    try:
        wrong, _, _ = clients("wrong")
        list(wrong.managed_clusters.list())
        check(False, "a wrong secret is accepted")
    except ClientAuthenticationError as error:
        check("AADSTS7000215" in str(error), f"a wrong secret: {error}")
        told("a wrong secret")

    aks, resources, roles = clients(secret)
    groups = resources.resource_groups
    before = [cluster.name for cluster in aks.managed_clusters.list()]
    told("list", clusters=before)
    for way, own in others():
        listed = ContainerServiceClient(own, SUBSCRIPTION, **COMMON).managed_clusters.list()
        check([cluster.name for cluster in listed] == before, f"the list with {way}")
        told("login", way=way)
    group = groups.create_or_update(GROUP, {"location": "local", "tags": {"for": "sdk"}})
    check(group.properties.provisioning_state == "Succeeded", f"the group: {group}")
    check(any(one.name == GROUP for one in groups.list()), "the group is not listed")

    refused("get of what is not there", 404, "ResourceNotFound", lambda: aks.managed_clusters.get(GROUP, CLUSTER))
    try:
        aks.agent_pools.get(GROUP, CLUSTER, "np1")
        check(False, "a pool of no cluster is there")
    except ResourceNotFoundError:
        told("get of a pool of what is not there")

    def cluster(**more):
        return models.ManagedCluster(
            location="local",
            identity=models.ManagedClusterIdentity(type="SystemAssigned"),
            tags={"made": "by the SDK"},
            properties=models.ManagedClusterProperties(
                dns_prefix="sdk",
                agent_pool_profiles=[
                    models.ManagedClusterAgentPoolProfile(name="np1", mode="System", count=1, **more)
                ],
            ),
        )

    wrong_size = refused(
        "a size that is not there",
        400,
        "InvalidParameter",
        lambda: aks.managed_clusters.begin_create_or_update(GROUP, CLUSTER, cluster(vm_size="Standard_Nothing")),
    )
    check("Standard_Nothing" in wrong_size.message, f"the message: {wrong_size.message}")
    begun = time.monotonic()
    made = aks.managed_clusters.begin_create_or_update(GROUP, CLUSTER, cluster()).result()
    check(made.properties.provisioning_state == "Succeeded", f"the cluster: {made}")
    check(ready_nodes(aks) == 1, "the cluster's node is not ready")
    told("create", seconds=round(time.monotonic() - begun, 1))
    check([one.name for one in aks.managed_clusters.list_by_resource_group(GROUP)] == [CLUSTER], "the group's list")
    listed = resources.resources.list(filter="resourceType eq 'Microsoft.ContainerService/managedClusters'")
    check(sorted(one.name for one in listed) == sorted([*before, CLUSTER]), "the list of resources")

    pool = aks.agent_pools.get(GROUP, CLUSTER, "np1")
    pool.properties.count = 2
    scaled = aks.agent_pools.begin_create_or_update(GROUP, CLUSTER, "np1", pool).result()
    check(scaled.properties.count == 2, f"the pool: {scaled}")
    check(ready_nodes(aks) == 2, "the second node is not ready")
    machines = list(aks.machines.list(GROUP, CLUSTER, "np1"))
    check(len(machines) == 2, f"the machines: {machines}")
    told("scale", machines=[machine.name for machine in machines])

    etag = aks.agent_pools.get(GROUP, CLUSTER, "np1").properties.e_tag
    refused(
        "a change of what has changed meanwhile",
        412,
        "PreconditionFailed",
        lambda: aks.agent_pools.begin_create_or_update(
            GROUP, CLUSTER, "np1", scaled, etag="not-" + etag, match_condition=match("IfNotModified")
        ),
    )
    refused(
        "more nodes than a pool may have",
        400,
        "InvalidParameter",
        lambda: aks.agent_pools.begin_create_or_update(
            GROUP,
            CLUSTER,
            "np2",
            models.AgentPool(properties=models.ManagedClusterAgentPoolProfileProperties(count=1001)),
        ),
    )

    tagged = aks.managed_clusters.begin_update_tags(GROUP, CLUSTER, models.TagsObject(tags={"made": "anew"})).result()
    check(tagged.tags == {"made": "anew"}, f"the tags: {tagged.tags}")
    check(aks.managed_clusters.get(GROUP, CLUSTER).tags == {"made": "anew"}, "the tags that are read")
    told("tags")

    scope = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    name = str(uuid.uuid4())
    roles.role_assignments.create(
        scope,
        name,
        {
            "properties": {
                "roleDefinitionId": f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{READER}",
                "principalId": str(uuid.uuid4()),
                "principalType": "ServicePrincipal",
            }
        },
    )
    assigned = [one.name for one in roles.role_assignments.list_for_scope(scope, filter="atScope()")]
    check(name in assigned, f"the assignments: {assigned}")
    roles.role_assignments.delete(scope, name)
    told("roles")

    aks.managed_clusters.begin_delete(GROUP, CLUSTER).result()
    refused("get of what was deleted", 404, "ResourceNotFound", lambda: aks.managed_clusters.get(GROUP, CLUSTER))
    groups.begin_delete(GROUP).result()
    check(not groups.check_existence(GROUP), "the group is still there")
    told("delete")


def match(name):
    from azure.core import MatchConditions

    return getattr(MatchConditions, name)


main()

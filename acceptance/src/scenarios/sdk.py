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
AT = (GROUP, CLUSTER)
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


def kubectl(value, *arguments):
    """kubectl of the node image with a kubeconfig as the SDK gave it."""
    # Bytes that are decoded, or their base64, by the generation of the SDK.
    text = bytes(value) if not isinstance(value, str) else base64.b64decode(value)
    with open("sdk.kubeconfig", "wb") as file:
        file.write(text)
    command = [os.environ["KUBECTL"], "--kubeconfig", "sdk.kubeconfig", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def may(value, *what):
    """Whether a kubeconfig is good for something."""
    return kubectl(value, "auth", "can-i", *what).stdout.strip() == "yes"


def shown(value, *what):
    """What kubectl gets, as JSON."""
    said = kubectl(value, "get", *what, "--output", "json")
    check(said.returncode == 0, f"kubectl get {what}: {said.stderr}")
    return json.loads(said.stdout)


def admin(aks):
    return aks.managed_clusters.list_cluster_admin_credentials(*AT).kubeconfigs[0].value


def ready(aks):
    """Nodes that are Ready, with their uids."""
    found = {}
    for node in shown(admin(aks), "nodes")["items"]:
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        if conditions.get("Ready") == "True":
            found[node["metadata"]["name"]] = node["metadata"]["uid"]
    return found


def ready_nodes(aks):
    return len(ready(aks))


def until(what, look):
    """Waits for a condition of the cluster; the host may be busy with others."""
    end = time.monotonic() + 180
    while True:
        found = look()
        if found:
            return found
        check(time.monotonic() < end, what)
        time.sleep(1)


def versions(aks):
    """Which versions there are, for a cluster that has the newest or not."""
    own = aks.managed_clusters.get(*AT).properties.current_kubernetes_version
    offered = [one.version for one in aks.managed_clusters.list_kubernetes_versions("local").values_property]
    check(any(own.startswith(f"{version}.") for version in offered), f"{own} is not among {offered}")
    profile = aks.managed_clusters.get_upgrade_profile(*AT).properties.control_plane_profile
    check(profile.kubernetes_version == own, f"the upgrade profile: {profile}")
    profile = aks.agent_pools.get_upgrade_profile(*AT, "np1").properties
    check(profile.kubernetes_version == own and profile.latest_node_image_version, f"of the pool: {profile}")
    pools = aks.agent_pools.get_available_agent_pool_versions(*AT).properties.agent_pool_versions
    check([one.kubernetes_version for one in pools if one.default] == [own], f"versions of pools: {pools}")
    names = [one.name for one in aks.operations.list()]
    check("Microsoft.ContainerService/managedClusters/read" in names, f"the operations: {names}")
    told("versions of Kubernetes", offered=offered)


def nothing_there(aks):
    """Types of which the cluster and its group have none: lists are empty, one that is asked for is not there, one that is to go is gone."""

    def missing(what, act):
        refused(what, 404, "ResourceNotFound", act)

    for what, every, one, delete in [
        (
            "managed namespace",
            aks.managed_namespaces.list_by_managed_cluster,
            aks.managed_namespaces.get,
            aks.managed_namespaces.begin_delete,
        ),
        (
            "trusted access binding",
            aks.trusted_access_role_bindings.list,
            aks.trusted_access_role_bindings.get,
            aks.trusted_access_role_bindings.begin_delete,
        ),
        (
            "identity binding",
            aks.identity_bindings.list_by_managed_cluster,
            aks.identity_bindings.get,
            aks.identity_bindings.begin_delete,
        ),
        (
            "private endpoint connection",
            aks.private_endpoint_connections.list,
            aks.private_endpoint_connections.get,
            aks.private_endpoint_connections.begin_delete,
        ),
    ]:
        # Of some types the SDK gives the list itself, of the others its pages.
        found = every(*AT)
        items = found.value if hasattr(found, "value") else list(found)
        check(not items, f"each {what}: {items}")
        missing(f"a {what}", lambda one=one: one(*AT, "none"))
        delete(*AT, "none").result()
    approved = models.PrivateEndpointConnection(
        properties=models.PrivateEndpointConnectionProperties(
            private_link_service_connection_state=models.PrivateLinkServiceConnectionState(status="Approved")
        )
    )
    missing(
        "the approval of a private endpoint connection",
        lambda: aks.private_endpoint_connections.update(*AT, "none", approved),
    )
    links = aks.private_link_resources.list(*AT).value
    check(not links, f"the private link resources: {links}")
    missing(
        "a private link service",
        lambda: aks.resolve_private_link_service_id.post(*AT, models.PrivateLinkResource(name="management")),
    )
    outbound = list(aks.managed_clusters.list_outbound_network_dependencies_endpoints(*AT))
    check(outbound == [], f"what it needs outside: {outbound}")
    meshes = [
        *aks.managed_clusters.list_mesh_revision_profiles("local"),
        *aks.managed_clusters.list_mesh_upgrade_profiles(*AT),
    ]
    check(meshes == [], f"the meshes: {meshes}")
    missing("revisions of a mesh", lambda: aks.managed_clusters.get_mesh_revision_profile("local", "istio"))
    missing("upgrades of a mesh", lambda: aks.managed_clusters.get_mesh_upgrade_profile(*AT, "istio"))
    missing("a snapshot", lambda: aks.snapshots.get(GROUP, "none"))
    aks.snapshots.delete(GROUP, "none")
    snapshots = list(aks.snapshots.list_by_resource_group(GROUP))
    check(snapshots == [], f"the snapshots: {snapshots}")
    told(
        "what there is none of",
        roles=[one.name for one in aks.trusted_access_roles.list("local")],
        snapshots=[one.name for one in aks.snapshots.list()],
    )


def credentials(aks):
    """Each kubeconfig is good for what it is said to be, and for no more."""
    clusters = aks.managed_clusters
    everything = ("*", "*", "--all-namespaces")
    user = clusters.list_cluster_user_credentials(*AT).kubeconfigs[0].value
    check(may(user, "create", "configmaps", "--namespace", "default"), "the user may not work")
    check(not may(user, *everything), "the user may do everything")
    monitoring = clusters.list_cluster_monitoring_user_credentials(*AT).kubeconfigs[0].value
    check(len(shown(monitoring, "nodes")["items"]) == 2, "monitoring sees other nodes")
    check(not may(monitoring, "get", "secrets", "--all-namespaces"), "monitoring reads secrets")
    profile = clusters.get_access_profile(*AT, "clusterAdmin").properties.kube_config
    check(may(profile, *everything), "the administrator's profile is no administrator's")
    told("credentials")


def command(aks):
    """A command in the cluster, and what came of it."""
    nodes = set(ready(aks))
    asked = models.RunCommandRequest(command="kubectl get nodes --output name")
    ran = aks.managed_clusters.begin_run_command(*AT, asked).result()
    named = {line.removeprefix("node/") for line in ran.properties.logs.split()}
    check(ran.properties.exit_code == 0 and named == nodes, f"the command: {ran}")
    again = aks.managed_clusters.get_command_result(*AT, ran.id)
    check(again.properties.logs == ran.properties.logs, f"the command's result: {again}")
    told("command")


def aborts(aks):
    """A pool that is about to grow goes back, for an abort of the pool's operation and for one of the cluster's."""
    before = ready(aks)
    for what, abort in [
        ("pool", lambda: aks.agent_pools.begin_abort_latest_operation(*AT, "np1")),
        ("cluster", lambda: aks.managed_clusters.begin_abort_latest_operation(*AT)),
    ]:
        pool = aks.agent_pools.get(*AT, "np1")
        pool.properties.count = 3
        aks.agent_pools.begin_create_or_update(*AT, "np1", pool, polling=False)
        abort().result()
        pool = aks.agent_pools.get(*AT, "np1")
        check(pool.properties.count == 2, f"the pool after an abort of the {what}: {pool}")
        until(f"other nodes after an abort of the {what}", lambda: ready(aks) == before)
        told("abort", of=what)


def nodes(aks):
    """One node is taken away by its name, the other is replaced by one of the newest image."""
    gone, stays = [machine.name for machine in aks.machines.list(*AT, "np1")]
    check(aks.machines.get(*AT, "np1", gone).name == gone, "the machine is not there")
    named = models.AgentPoolDeleteMachinesParameter(machine_names=[gone])
    aks.agent_pools.begin_delete_machines(*AT, "np1", named).result()
    until(f"{gone} is still there", lambda: set(ready(aks)) == {stays})
    pools = [(pool.name, pool.properties.count) for pool in aks.agent_pools.list(*AT)]
    check(pools == [("np1", 1)], f"the pools: {pools}")
    told("delete of a machine")
    before = set(ready(aks).values())
    aks.agent_pools.begin_upgrade_node_image_version(*AT, "np1").result()
    until("the node of before is there", lambda: len(ready(aks)) == 1 and before.isdisjoint(ready(aks).values()))
    told("node image")


def directory(aks):
    """The groups that administer the cluster, when it comes to know the directory and when they are changed alone."""
    first, second = str(uuid.uuid4()), str(uuid.uuid4())

    def profile(group):
        return models.ManagedClusterAADProfile(managed=True, admin_group_object_i_ds=[group])

    cluster = aks.managed_clusters.get(*AT)
    cluster.properties.aad_profile = profile(first)
    aks.managed_clusters.begin_create_or_update(*AT, cluster).result()
    aks.managed_clusters.begin_reset_aad_profile(*AT, profile(second)).result()
    groups = aks.managed_clusters.get(*AT).properties.aad_profile.admin_group_object_i_ds
    check(groups == [second], f"the groups: {groups}")

    def bound():
        # Made a moment after the cluster has come to know the directory.
        every = shown(admin(aks), "clusterrolebindings")["items"]
        found = [one for one in every if one["metadata"]["name"] == "aks-cluster-admin-binding-aad"]
        return [one["name"] for binding in found for one in binding.get("subjects") or []] == [second]

    until("the cluster does not have the group", bound)
    told("directory")


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

    for tried in [versions, nothing_there, credentials, command, aborts, nodes, directory]:
        tried(aks)

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

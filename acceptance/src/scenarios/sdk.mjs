// Drives a stamp with Azure's SDK for JavaScript, as an application would. Reads its settings from the environment, and prints a line of JSON
// for each thing that was tried; ends with an error where an answer is not as it has to be.
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";

// This text is no file: what it needs is found from where it was installed.
const require = createRequire(`${process.env.MODULES}/package.json`);
const { ContainerServiceClient } = require("@azure/arm-containerservice");
const { ClientSecretCredential } = require("@azure/identity");

const { ENDPOINT, TENANT, CLIENT, SECRET, SUBSCRIPTION, AUDIENCE, GROUP } = process.env;
const CLUSTER = "sdkjs";

const told = (tried, more = {}) => console.log(JSON.stringify({ tried, ...more }));
const check = (condition, what) => {
  if (!condition) {
    console.error(`not as it has to be: ${what}`);
    process.exit(1);
  }
};
const refused = async (what, status, code, act) => {
  try {
    await act();
  } catch (error) {
    check(error.statusCode === status && error.code === code, `${what}: ${error.statusCode} ${error.code} ${error.message}`);
    told(what, { status, code });
    return;
  }
  check(false, `${what} was accepted`);
};

const credential = new ClientSecretCredential(TENANT, CLIENT, SECRET, {
  authorityHost: ENDPOINT,
  disableInstanceDiscovery: true,
});
const client = new ContainerServiceClient(credential, SUBSCRIPTION, {
  endpoint: ENDPOINT,
  credentials: { scopes: [`${AUDIENCE}/.default`] },
  credentialScopes: [`${AUDIENCE}/.default`],
});
const clusters = client.managedClusters;
const pools = client.agentPools;
// Long-running operations are called by either name, by the generation of the SDK.
const wait = (of, name, ...more) => (of[`begin${name[0].toUpperCase()}${name.slice(1)}AndWait`] ?? of[name]).call(of, ...more);

told("versions", { sdk: require("@azure/arm-containerservice/package.json").version });
const before = [];
for await (const cluster of clusters.list()) before.push(cluster.name);
told("list", { clusters: before });
await refused("get of what is not there", 404, "ResourceNotFound", () => clusters.get(GROUP, CLUSTER));
const body = (vmSize) => ({
  location: "local",
  // The cluster is an application's instead of an identity of its own, so that it can be given to another.
  servicePrincipalProfile: { clientId: CLIENT, secret: SECRET },
  tags: { made: "by the SDK" },
  dnsPrefix: "sdkjs",
  agentPoolProfiles: [{ name: "np1", mode: "System", count: 1, vmSize }],
});
await refused("a size that is not there", 400, "InvalidParameter", () =>
  wait(clusters, "createOrUpdate", GROUP, CLUSTER, body("Standard_Nothing")),
);
const made = await wait(clusters, "createOrUpdate", GROUP, CLUSTER, body("Standard_B2s"));
check(made.provisioningState === "Succeeded", JSON.stringify(made));
told("create");
const pool = await pools.get(GROUP, CLUSTER, "np1");
const scaled = await wait(pools, "createOrUpdate", GROUP, CLUSTER, "np1", { ...pool, count: 2 });
check(scaled.count === 2, JSON.stringify(scaled));
const machines = [];
for await (const machine of client.machines.list(GROUP, CLUSTER, "np1")) machines.push(machine.name);
check(machines.length === 2, JSON.stringify(machines));
told("scale", { machines });
await wait(pools, "deleteMachines", GROUP, CLUSTER, "np1", { machineNames: [machines[1]] });
check((await pools.get(GROUP, CLUSTER, "np1")).count === 1, "the pool without its second node");
told("delete of a machine");
const anew = await wait(pools, "upgradeNodeImageVersion", GROUP, CLUSTER, "np1");
check(anew?.name === "np1" && anew.provisioningState === "Succeeded", JSON.stringify(anew));
told("node image");
const tagged = await wait(clusters, "updateTags", GROUP, CLUSTER, { tags: { made: "anew" } });
check(tagged.tags.made === "anew", JSON.stringify(tagged.tags));
told("tags");
check(tagged.servicePrincipalProfile.clientId === CLIENT, JSON.stringify(tagged.servicePrincipalProfile));
const other = randomUUID();
await wait(clusters, "resetServicePrincipalProfile", GROUP, CLUSTER, { clientId: other, secret: SECRET });
const { servicePrincipalProfile: principal } = await clusters.get(GROUP, CLUSTER);
check(principal.clientId === other && !principal.secret, JSON.stringify(principal));
told("service principal");
await wait(clusters, "delete", GROUP, CLUSTER);
await refused("get of what was deleted", 404, "ResourceNotFound", () => clusters.get(GROUP, CLUSTER));
told("delete");

/**
 * From the table of services and the wished placements to service domains of a VM with their images and routes.
 */
import { HypolithError } from "../base/errors.ts";
import type { MachineConfig, PlacementName } from "../control/protocol.ts";
import { StateGroup } from "../hypervisor/abi/message.ts";
import type { Grants } from "../hypervisor/abi/service.ts";
import type { ServiceImage } from "../hypervisor/kernel/placement.ts";
import type { Portal } from "../hypervisor/kernel/portal.ts";
import type { RouteTable } from "../hypervisor/kernel/routes.ts";
import { DEFAULT_POLICY, ServiceDomain } from "../hypervisor/kernel/service-domain.ts";
import { guestImage, isGuest } from "./placements/guest.ts";
import { openLinked, SameThread } from "./placements/same-thread.ts";
import type { ServiceSpec } from "./service-table.ts";

/** What a placement needs to start lives of a service. */
export interface ServiceOrder {
  readonly spec: ServiceSpec;
  readonly grants: Grants;
  /** Plain data for the program. */
  readonly options: unknown;
}

/** Where the embedder can put services. Without it they are linked: trusted code in the machine's realm. */
export interface ServiceHost {
  /** The image of a service for a placement; null if there is no such placement here. */
  image(placement: PlacementName, order: ServiceOrder): ServiceImage | null;
}

const ALL = "all";

/** Makes the domains and their routes, in the order of the table. `log`: a placement that is not to be had, and what was taken instead. */
export function createServices(
  config: Pick<MachineConfig, "rtcEpochMs" | "services" | "servicePolicy">,
  specs: readonly ServiceSpec[],
  routes: RouteTable,
  ports: { host: ServiceHost | undefined; log: (text: string) => void },
): ServiceDomain[] {
  const wishes = config.services ?? {};
  checkNames(Object.keys(wishes), specs);
  const portals = new Map<string, ServicePortals>();
  const domains = specs.map((spec, number) => {
    const grants: Grants = grantsOf(spec);
    const order = { spec, grants, options: spec.options?.(config) };
    const wish = wishes[spec.name] ?? wishes[ALL] ?? "inline";
    const domain = new ServiceDomain({
      name: spec.name,
      number,
      capabilities: spec.capabilities,
      policy: { ...DEFAULT_POLICY, ...config.servicePolicy },
      image: imageFor(wish, order, ports),
    });
    portals.set(spec.name, route(spec, domain, routes));
    return domain;
  });
  for (const { name, forwardsTo = [] } of specs) {
    for (const target of forwardsTo) {
      portals.get(name)!.io.forwards.push(portals.get(target)!.io);
      portals.get(name)!.memory.forwards.push(portals.get(target)!.memory);
    }
  }
  return domains;
}

function checkNames(names: readonly string[], specs: readonly ServiceSpec[]): void {
  const known = [...specs.map(({ name }) => name), ALL];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new HypolithError("no-such-service", `there is no service ${unknown}`, {
    hint: `there are: ${known.join(", ")}`,
  });
}

function grantsOf({ capabilities }: ServiceSpec): Grants {
  const { lines, messages, streams, stops, windows, decodes, forwards } = capabilities;
  return { lines, messages, streams, stops, windows, decodes, forwards };
}

function imageFor(
  wish: PlacementName,
  order: ServiceOrder,
  { host, log }: { host: ServiceHost | undefined; log: (text: string) => void },
): ServiceImage {
  const { name } = order.spec;
  const image = isGuest(wish) ? guestImage(name, wish) : host?.image(wish, order);
  if (image) return image;
  if (wish !== "inline") {
    const instead = host?.image("inline", order);
    log(`service ${name}: there is no placement ${wish} here, it runs inline`);
    if (instead) return instead;
  }
  return linkedImage(order);
}

export function linkedImage({ spec, grants, options }: ServiceOrder): ServiceImage {
  return (port) => new SameThread("linked", openLinked(spec.factory, { options, grants }, port));
}

const IO_STATE = StateGroup.EXIT | StateGroup.RIP | StateGroup.LOW_REGISTERS;

/** While they are being joined: afterwards nobody changes them. */
interface ServicePortals {
  readonly io: Portal & { readonly forwards: Portal[] };
  readonly memory: Portal & { readonly forwards: Portal[] };
}

function route(spec: ServiceSpec, service: ServiceDomain, routes: RouteTable): ServicePortals {
  const io = {
    name: "io",
    service,
    index: 0,
    stateIn: IO_STATE,
    stateOut: StateGroup.RIP | StateGroup.LOW_REGISTERS,
    forwards: [] as Portal[],
  };
  const memory = {
    name: "memory",
    service,
    index: 1,
    stateIn: StateGroup.EXIT | StateGroup.DEVICE,
    stateOut: StateGroup.DEVICE,
    forwards: [] as Portal[],
  };
  for (const [from, to] of spec.ports) routes.routePorts(from, to, io);
  for (const [from, to] of spec.memory) routes.routeMemory(from, to, memory);
  service.decodePortals = { memory, ports: io };
  return { io, memory };
}

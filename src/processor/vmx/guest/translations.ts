/**
 * Translations of a guest's guest: the guest hypervisor's EPT over ours in a second physical map, and linear addresses under numbers of their
 * own. SDM Vol. 3C, "Caching Translation Information", "Page-Modification Logging".
 */
import { Field, SecondaryControl } from "../../isa/vmcs-fields.ts";
import {
  GUEST_PCID_MAP,
  GUEST_PHYSICAL_MAP,
  Page,
  PCID_MAP,
  PCIDS,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  S,
} from "../../state/layout.ts";
import type { Engine } from "../engine-port.ts";
import { EptResult, GuestEpt, type PageLog } from "./guest-ept.ts";
import type { VmxOperation } from "./vmx-operation.ts";

const PML_ENTRIES = 512;
/** HIGH_FLUSHES of a processor that does not cache the upper half once for all address spaces. */
const NEVER_SHARED = 0x4000_0000;
/** Above this many, clearing the whole map is cheaper. */
const MANY_PAGES = 0x2_0000;
const MAP_DISTANCE = GUEST_PHYSICAL_MAP - PHYSICAL_MAP;

export class Translations {
  readonly #operation: VmxOperation;
  readonly #engine: Engine;
  readonly #ownPage: (page: number, need: number) => number;
  /** Its last walk says where an access leads. */
  readonly ept: GuestEpt;
  /** The guest's guest has an EPT of the guest's. */
  #usesEpt = false;
  /** Its physical addresses are looked up here: it has an EPT, or a page that stands for its APIC. */
  usesMap = false;
  /** The APIC-access page, -1n for none. */
  apicPage = -1n;
  #eptp = 0n;
  /** What the second address-space and physical maps have been filled for. */
  #cachedVpid = -1;
  #cachedEptp = -1n;
  #mapped: number[] = [];

  /** `ownPage`: as in VmxOperation. */
  constructor(
    operation: VmxOperation,
    engine: Engine,
    ownPage: (page: number, need: number) => number,
  ) {
    this.#operation = operation;
    this.#engine = engine;
    this.#ownPage = ownPage;
    this.ept = new GuestEpt(operation, operation.limits.physicalBits);
  }

  /** From here on two hierarchies of translations share the TLB. */
  begin(): void {
    this.#operation.view.setUint32(S.HIGH_FLUSHES.at, NEVER_SHARED, true);
    this.forgetAll();
    this.#engine.flushTlb();
  }

  /** The guest hypervisor's own again. */
  leave(): void {
    const { view } = this.#operation;
    this.#usesEpt = false;
    this.usesMap = false;
    view.setUint32(S.GUEST_EPT.at, 0, true);
    view.setUint32(S.PHYSICAL_BASE.at, 0, true);
    view.setUint32(S.PCID_BASE.at, 0, true);
  }

  /** Where an access of the guest's guest leads: EptResult; with OK the rest is in #ept. */
  walk(address: bigint, need: number, log: PageLog | null): number {
    if (this.#usesEpt) return this.ept.walk(this.#eptp, address, need, log);
    this.ept.pass(address);
    return EptResult.OK;
  }

  /** Physical-map entry of a page of the guest's guest. `need`: rights that the access wants. */
  fill(page: number, need: number): number {
    const view = this.#operation.view;
    const address = BigInt(page) * 4096n;
    const result = this.walk(address, need, (a) => this.#logDirty(a));
    if (result !== EptResult.OK) return Page.KNOWN;
    const under = this.ept.physical;
    // Of its APIC's page only what is virtualized is an access to a device, and nothing of it is remembered.
    if (under === this.apicPage) {
      const offset = view.getUint32(S.WALK_PHYSICAL.at, true) & 0xfff;
      const isData = (need & Page.EXECUTE) === 0;
      const isVirtual =
        isData && this.#operation.apic.virtualizes(offset, (need & Page.WRITE) !== 0);
      return isVirtual ? Page.KNOWN | Page.DEVICE : Page.KNOWN;
    }
    const below =
      under >> 32n === 0n ? this.#ownPage(Number(under >> 12n), need) : Page.DEVICE | Page.KNOWN;
    let entry: number;
    let isCached = page < PHYSICAL_MAP_PAGES;
    if ((below & Page.DEVICE) !== 0) {
      const both = Page.READ | Page.WRITE;
      isCached &&= (this.ept.rights & both) === both && this.ept.isDirty;
      entry = Page.KNOWN | Page.DEVICE;
    } else {
      const rights = this.ept.rights & below & 7;
      const known = this.ept.isDirty ? rights : rights & ~Page.WRITE;
      entry = ((below & -4096) | known | Page.KNOWN) >>> 0;
    }
    if (isCached) {
      view.setUint32(GUEST_PHYSICAL_MAP + 4 * page, entry, true);
      this.#mapped.push(page);
    }
    return entry | 0;
  }

  /** Page-modification logging. Answers false if the log is full. */
  #logDirty(address: bigint): boolean {
    if (!this.#operation.secondary(SecondaryControl.PML)) return true;
    const index = this.#operation.vmcs.number(Field.PML_INDEX) & 0xffff;
    if (index >= PML_ENTRIES) return false;
    const at = this.#operation.hostOf(
      this.#operation.vmcs.big(Field.PML_ADDRESS) + BigInt(8 * index),
    );
    if (at !== 0) this.#operation.view.setBigUint64(at, address & ~0xfffn, true);
    this.#operation.vmcs.set(Field.PML_INDEX, (index - 1) & 0xffff);
    return true;
  }

  isLogFull(need: number): boolean {
    return (
      (need & Page.WRITE) !== 0 &&
      !this.ept.isDirty &&
      this.#operation.secondary(SecondaryControl.PML) &&
      (this.#operation.vmcs.number(Field.PML_INDEX) & 0xffff) >= PML_ENTRIES
    );
  }

  /** Translations of the guest's guest, those of an earlier stay if VPID and EPT let them be. */
  enter(): void {
    const view = this.#operation.view;
    this.#usesEpt = this.#operation.secondary(SecondaryControl.EPT);
    this.#eptp = this.#usesEpt ? this.#operation.vmcs.big(Field.EPTP) : -1n;
    const apicPage = this.#operation.apic.virtualizesAccesses
      ? this.#operation.vmcs.big(Field.APIC_ACCESS)
      : -1n;
    this.usesMap = this.#usesEpt || apicPage >= 0n;
    const vpid = this.#operation.secondary(SecondaryControl.VPID)
      ? this.#operation.vmcs.number(Field.VPID)
      : 0;
    if (vpid === 0) this.forgetHost();
    const isSameMap = this.#eptp === this.#cachedEptp && apicPage === this.apicPage;
    if (vpid === 0 || vpid !== this.#cachedVpid || !isSameMap) {
      this.forgetLinear();
      if (!isSameMap) this.forgetMapped();
      this.#cachedVpid = vpid;
      this.#cachedEptp = this.#eptp;
      this.apicPage = apicPage;
    }
    view.setUint32(S.GUEST_EPT.at, this.usesMap ? 1 : 0, true);
    view.setUint32(S.PHYSICAL_BASE.at, this.usesMap ? MAP_DISTANCE : 0, true);
    view.setUint32(S.PCID_BASE.at, GUEST_PCID_MAP - PCID_MAP, true);
    this.#engine.enterAddressSpace(false);
  }

  forgetMapped(): void {
    const view = this.#operation.view;
    if (this.#mapped.length > MANY_PAGES)
      new Uint8Array(view.buffer, GUEST_PHYSICAL_MAP, 4 * PHYSICAL_MAP_PAGES).fill(0);
    else for (const page of this.#mapped) view.setUint32(GUEST_PHYSICAL_MAP + 4 * page, 0, true);
    this.#mapped = [];
  }

  /** Forgets the linear translations of the guest's guest: they get new numbers. */
  forgetLinear(): void {
    new Uint8Array(this.#operation.view.buffer, GUEST_PCID_MAP, 2 * PCIDS).fill(0);
  }

  /** Without VPID an entry and an exit flush what the guest hypervisor has cached, too. */
  forgetHost(): void {
    new Uint8Array(this.#operation.view.buffer, PCID_MAP, 2 * PCIDS).fill(0);
  }

  forgetAll(): void {
    this.forgetMapped();
    this.forgetLinear();
    this.#cachedVpid = -1;
    this.#cachedEptp = -1n;
  }
}

/** What `hypo ps` and `hypo services` print. */
import type { ServiceReport, ServicesReport } from "../../../src/control/protocol.ts";
import { formatSize } from "../../common/size.ts";
import type { MachineSummary, MachineUsage } from "./verbs.ts";

export function formatMachines(machines: readonly MachineSummary[], now: number): string {
  const rows = machines.map((machine) => [
    machine.name,
    statusText(machine, now),
    String(machine.pid),
    formatAge((machine.ended ?? now) - machine.started),
    formatSize(machine.memoryBytes),
    oneLine(machine.what),
  ]);
  return formatTable([["NAME", "STATUS", "PID", "AGE", "MEMORY", "RUNS"], ...rows]);
}

function statusText({ status, exitCode, ended }: MachineSummary, now: number): string {
  if (status === "ended") return `ended (${exitCode}) ${formatAge(now - ended!)} ago`;
  return status === "died" ? "died" : status;
}

/** Nothing that a terminal would take for a command. */
export function oneLine(text: string): string {
  const plain = text.replaceAll(/[\p{Cc}\p{Cf}]+/gu, " ");
  return plain.length > LONGEST_WHAT ? `${plain.slice(0, LONGEST_WHAT - 3)}...` : plain;
}

const LONGEST_WHAT = 60;

export function formatStats(rows: readonly MachineUsage[]): string {
  const lines = rows.map((row) => [
    row.name,
    `${row.cpuPercent.toFixed(1)} %`,
    formatSize(roundToMebi(row.residentBytes)),
    formatSize(row.memoryBytes),
    formatAge(row.upMs),
    (row.cpuMs / 1000).toFixed(1),
    `${percent(row.guestMs, total(row))} ${percent(row.kernelMs, total(row))} ${percent(row.servicesMs, total(row))}`,
    String(row.restarts),
    String(row.pid),
  ]);
  const titles = [
    "NAME",
    "CPU",
    "RESIDENT",
    "MEMORY",
    "UP",
    "CPU S",
    "GUEST KERNEL SERVICES",
    "RESTARTS",
    "PID",
  ];
  return formatTable([titles, ...lines]);
}

const total = ({ guestMs, kernelMs, servicesMs }: MachineUsage): number =>
  guestMs + kernelMs + servicesMs;

const roundToMebi = (bytes: number): number => Math.round(bytes / (1 << 20)) * (1 << 20);

export function formatServices(report: ServicesReport): string {
  const { activeMs, guestMs, kernelMs, services } = report;
  const rows = services.map((service) => [
    service.name,
    service.placement,
    String(service.messages),
    perSecond(service, activeMs),
    service.ms.toFixed(1),
    percent(service.ms, activeMs),
    String(service.restarts),
    service.longestStallMs.toFixed(1),
    service.rights.join(" ") || "-",
  ]);
  const titles = ["SERVICE", "PLACEMENT", "MESSAGES", "PER S", "MS", "SHARE", "RESTARTS"];
  const lines = [formatTable([[...titles, "STALL MS", "RIGHTS"], ...rows])];
  lines.push(
    `guest ${guestMs.toFixed(1)} ms (${percent(guestMs, activeMs)}), micro-hypervisor ${kernelMs.toFixed(1)} ms (${percent(kernelMs, activeMs)}), of ${activeMs.toFixed(1)} ms`,
  );
  for (const { name, lastFailure } of services)
    if (lastFailure !== null) lines.push(`${name}: last restart: ${lastFailure}`);
  return lines.join("\n");
}

function perSecond({ messages }: ServiceReport, activeMs: number): string {
  return activeMs > 0 ? ((messages * 1000) / activeMs).toFixed(0) : "-";
}

function percent(part: number, whole: number): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(1)} %` : "-";
}

export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

/** Columns as wide as what is in them. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

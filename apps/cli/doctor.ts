export interface DoctorOptions {
  readonly json?: boolean;
}
export async function doctor(_o: DoctorOptions, _s: AbortSignal): Promise<number> {
  return 0;
}

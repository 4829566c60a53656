/** Exit reasons that can reach a portal. SDM Vol. 3D, "VMX Basic Exit Reasons". */
export const ExitReasons = { IO: 30, EPT_VIOLATION: 48 } as const;

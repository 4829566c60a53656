/** The whole instruction set: every row of every family, numbered. */

import type { Row } from "./row.ts";
import { arithmeticRows } from "./rows/arithmetic.ts";
import { bitRows } from "./rows/bits.ts";
import { controlTransferRows } from "./rows/control-transfer.ts";
import { dataTransferRows } from "./rows/data-transfer.ts";
import { mmxRows, mmxSseRows } from "./rows/mmx.ts";
import { sse2IntegerRows, sse2Rows, sseRows } from "./rows/sse.ts";
import { cryptoRows, sse3Rows, sse41Rows, sse42Rows, ssse3Rows } from "./rows/sse3-up.ts";
import { stringRows } from "./rows/string.ts";
import { hintRows, stateRows, systemRows } from "./rows/system.ts";
import { vmxRows } from "./rows/vmx.ts";
import { x87Rows, x87UndocumentedRows } from "./rows/x87.ts";

export const ROWS: readonly Row[] = [
  ...arithmeticRows,
  ...bitRows,
  ...dataTransferRows,
  ...stringRows,
  ...controlTransferRows,
  ...x87Rows,
  ...x87UndocumentedRows,
  ...mmxRows,
  ...mmxSseRows,
  ...sseRows,
  ...sse2Rows,
  ...sse2IntegerRows,
  ...sse3Rows,
  ...ssse3Rows,
  ...sse41Rows,
  ...sse42Rows,
  ...cryptoRows,
  ...systemRows,
  ...stateRows,
  ...hintRows,
  ...vmxRows,
];
ROWS.forEach((row, id) => {
  row.id = id;
});

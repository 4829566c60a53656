import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HypolithError } from "../../../src/base/errors.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { checkRelease, machineKeyrings } from "./signed-release.ts";

const TEXT = "Origin: Debian\nSuite: stable\n- a line with a hyphen";
const signed = (text: string): Buffer =>
  Buffer.from(
    `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n${text.replaceAll(/^-/gm, "- -")}\n` +
      "-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n",
  );

/** A verifier that notes what it was given and answers as told. */
function stand(t: TestContext, program: "gpgv" | "sqv", answer: string, status: number) {
  const folder = scratchFolder(t);
  const verifier = join(folder, program);
  const script = `#!/bin/sh\necho "$@" >${folder}/words\nfor last; do :; done\ncp "$last" ${folder}/message\nprintf '${answer}'\nexit ${status}\n`;
  writeFileSync(verifier, script, { mode: 0o755 });
  const keyrings = {
    verifiers: [join(folder, "absent"), verifier],
    files: ["/k/a.gpg", "/k/b.gpg"],
  };
  return { folder, check: { url: "http://m/InRelease", keyrings, folder } };
}

const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

test("what was signed is what is taken: without the armour, escapes undone", (t) => {
  const { folder, check } = stand(t, "gpgv", "[GNUPG:] VALIDSIG x\\n", 2);
  const { text, isSigned } = checkRelease(signed(TEXT), check);
  assert.deepEqual([text, isSigned], [TEXT, true]);
  assert.equal(readFileSync(join(folder, "message"), "utf8"), TEXT);
  const words = readFileSync(join(folder, "words"), "utf8");
  assert.match(words, /^--keyring \/k\/a\.gpg --keyring \/k\/b\.gpg --status-fd 1 \S+\.gpg \S+\n$/);
});

test("a signature that is bad, unknown or expired is refused", (t) => {
  for (const answer of ["[GNUPG:] BADSIG x\\n", "[GNUPG:] NO_PUBKEY x\\n", ""]) {
    const { check } = stand(t, "gpgv", answer, 0);
    assert.throws(() => checkRelease(signed(TEXT), check), hasCode("release-unverified"));
  }
  const { check } = stand(t, "gpgv", "[GNUPG:] VALIDSIG x\\n[GNUPG:] BADSIG y\\n", 1);
  assert.throws(() => checkRelease(signed(TEXT), check), hasCode("release-unverified"));
  assert.equal(checkRelease(signed(TEXT), stand(t, "sqv", "", 0).check).isSigned, true);
  const wrong = stand(t, "sqv", "", 1).check;
  assert.throws(() => checkRelease(signed(TEXT), wrong), hasCode("release-unverified"));
});

test("nothing may stand beside what was signed", (t) => {
  const { check } = stand(t, "gpgv", "[GNUPG:] VALIDSIG x\\n", 0);
  const good = signed(TEXT).toString();
  for (const file of ["", TEXT, `Suite: evil\n${good}`, `${good}${good}`, `${good}\nSuite: evil\n`])
    assert.throws(() => checkRelease(Buffer.from(file), check), hasCode("release-unsigned"));
});

test("without a verifier or keys only TLS is believed", (t) => {
  const { folder, check } = stand(t, "gpgv", "", 0);
  const none = { ...check, keyrings: { verifiers: ["/nowhere/gpgv"], files: ["/k/a.gpg"] } };
  assert.throws(() => checkRelease(signed(TEXT), none), hasCode("release-unverified"));
  const keyless = {
    ...check,
    url: "https://m/InRelease",
    keyrings: { ...check.keyrings, files: [] },
  };
  assert.deepEqual(checkRelease(signed(TEXT), keyless), { text: TEXT, isSigned: false });
  assert.ok(!existsSync(join(folder, "words")));
});

test("the keys are those of the machine's Debian keyring, or of the folders of apt", (t) => {
  const folder = scratchFolder(t);
  const [shared, trusted] = [join(folder, "shared"), join(folder, "trusted")];
  for (const path of [shared, trusted]) mkdirSync(path);
  writeFileSync(join(trusted, "debian-archive-trixie-stable.gpg"), "");
  writeFileSync(join(trusted, "other.gpg"), "");
  assert.deepEqual(machineKeyrings([join(folder, "no"), shared, trusted]).files, [
    join(trusted, "debian-archive-trixie-stable.gpg"),
  ]);
  writeFileSync(join(shared, "debian-archive-keyring.pgp"), "");
  writeFileSync(join(shared, "debian-archive-removed-keys.pgp"), "");
  assert.deepEqual(machineKeyrings([shared, trusted]).files, [
    join(shared, "debian-archive-keyring.pgp"),
  ]);
});

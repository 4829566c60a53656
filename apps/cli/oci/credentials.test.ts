import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchFolder } from "../testing/scratch.ts";
import { bearerChallenge } from "./challenge.ts";
import { readCredentials } from "./credentials.ts";
import { parseReference } from "./reference.ts";

const auth = (user: string, password: string): string =>
  Buffer.from(`${user}:${password}`).toString("base64");

test("the longest entry that fits is taken, a host's for all its repositories", (t) => {
  const file = join(scratchFolder(t), "auth.json");
  writeFileSync(
    file,
    JSON.stringify({
      auths: {
        "r.example": { auth: auth("all", "1:2") },
        "r.example/team": { username: "team", password: "x" },
        "https://index.docker.io/v1/": { auth: auth("hub", "p") },
        "t.example": { auth: auth("t", ""), identitytoken: "refresh" },
      },
    }),
  );
  const find = readCredentials({ REGISTRY_AUTH_FILE: file });
  assert.equal(find(parseReference("r.example/team/app"))?.user, "team");
  assert.deepEqual(find(parseReference("r.example/other")), {
    user: "all",
    password: "1:2",
    identityToken: undefined,
  });
  assert.equal(find(parseReference("alpine"))?.user, "hub");
  assert.equal(find(parseReference("t.example/a"))?.identityToken, "refresh");
  assert.equal(find(parseReference("unknown.example/a")), undefined);
});

test("docker's file is read from the home folder, and none is no error unless it was named", (t) => {
  const home = scratchFolder(t);
  assert.equal(readCredentials({ HOME: home })(parseReference("a")), undefined);
  mkdirSync(join(home, ".docker"));
  writeFileSync(join(home, ".docker", "config.json"), '{"auths":{"r.example":{"auth":"YTpi"}}}');
  assert.equal(readCredentials({ HOME: home })(parseReference("r.example/a"))?.password, "b");
  assert.throws(() => readCredentials({ REGISTRY_AUTH_FILE: join(home, "no") }), {
    code: "credentials-unreadable",
  });
  writeFileSync(join(home, "bad"), "{");
  assert.throws(() => readCredentials({ REGISTRY_AUTH_FILE: join(home, "bad") }), {
    code: "credentials-unreadable",
  });
});

test("a challenge is read with commas and quotes in its values", () => {
  assert.deepEqual(
    bearerChallenge('Bearer realm="https://a/t",service="x, y",scope="repository:a:pull,push"'),
    {
      realm: "https://a/t",
      service: "x, y",
      scope: "repository:a:pull,push",
    },
  );
  assert.equal(bearerChallenge('Basic realm="x"'), undefined);
  assert.equal(bearerChallenge('Bearer realm="not a url"'), undefined);
});

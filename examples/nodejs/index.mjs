// Waits, and tells how many requests were in this execution environment at the same moment.
//
// The requests of one environment are spread over worker threads, and each thread has its own copy of this
// module. They meet in files in /tmp, which is private to the environment: one file for each request.

import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";

const FOLDER = "/tmp/in-flight";
mkdirSync(FOLDER, { recursive: true });
let most = 0;

export const handler = async (event, context) => {
  const mine = `${FOLDER}/${context.awsRequestId}`;
  writeFileSync(mine, "");
  console.log(`working on ${event.tag}`);
  const half = (event.wait_ms ?? 200) / 2;
  await wait(half);
  most = Math.max(most, readdirSync(FOLDER).length);
  await wait(half);
  rmSync(mine);
  return {
    tag: event.tag,
    environment: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    most_at_once: most,
    request_id: context.awsRequestId,
  };
};

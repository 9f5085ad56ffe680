/**
 * A process of its own that runs a small study with a stand-in for a reward model, to be killed on its way.
 *
 * Argument: the study's directory. Prints a line for all that happens.
 *
 * @module
 */
import { study } from "../../src/report/study.ts";
import { SMALL, StandIn } from "./study.ts";

const [out] = Deno.args;
const line = new TextEncoder().encode("+\n");
const happened = () => void Deno.stdout.writeSync(line);
const { lora } = await study({
  ...await SMALL(),
  ...{ out, rewardModel: new StandIn(happened), checkpointEvery: 3 },
  ...{ onStep: happened, onProgress: happened, onNote: happened },
});
lora[Symbol.dispose]();

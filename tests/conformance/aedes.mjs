// A broker on a loopback port, with retained messages in memory only. It ends when stdin does, so that it cannot
// outlive the test that started it. Usage: node aedes.mjs PORT, with aedes in a node_modules directory above.
import { createServer } from "node:net";
import { Aedes } from "aedes";

const broker = await Aedes.createBroker();
createServer(broker.handle).listen(Number(process.argv[2]), "127.0.0.1");
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

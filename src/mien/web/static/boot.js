// @ts-check
// Which engine this page has: `mien explore` serves this file, an exported page has its own.
import { fault } from "./dom.js";
import { start } from "./main.js";
import { server } from "./server.js";

start(server()).catch(fault);

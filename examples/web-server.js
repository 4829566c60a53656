// A machine that serves a page on a port of this computer: files into it, programs in it, a request from outside.
import { Machine } from "hypolith";

const port = process.argv[2] ?? "8080";

await using machine = await Machine.create({ ports: [`127.0.0.1:${port}:80`] });
await machine.start();
await machine.exec(["mkdir", "-p", "/srv/www"]);
await machine.files.write("/srv/www/index.html", "<h1>A page of the guest</h1>\n");
// It goes on in the background, as BusyBox's does unless told not to.
await machine.exec(["httpd", "-p", "80", "-h", "/srv/www"]);

const answer = await fetch(`http://127.0.0.1:${port}/`);
process.stdout.write(await answer.text());

// Posts a file with Java's HttpClient. A line for each try: the status, or what went wrong.
// usage: java Send.java TRIES URL FILE length|chunked

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;

class Send {
    public static void main(String[] arguments) throws Exception {
        byte[] data = Files.readAllBytes(Path.of(arguments[2]));
        HttpRequest.BodyPublisher body = arguments[3].equals("chunked")
            ? HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(data))
            : HttpRequest.BodyPublishers.ofByteArray(data);
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[1]))
            .header("Authorization", "Bearer wrong").POST(body).build();
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < Integer.parseInt(arguments[0]); i++) {
            try {
                System.out.println(
                    client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
            } catch (IOException error) {
                System.out.println(error);
            }
        }
    }
}

<?php
header('Content-Type: application/json');
echo json_encode(['pid' => getmypid(), 'server' => $_SERVER, 'get' => $_GET, 'input' => file_get_contents('php://input')],
                 JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES);
